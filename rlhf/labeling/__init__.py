"""People as judges: what they are shown, what they said, kept in SQLite, and what training and comparing make of it."""

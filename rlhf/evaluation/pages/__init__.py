"""What every page of results is made of: `html` for its text, `figures` for its pictures."""

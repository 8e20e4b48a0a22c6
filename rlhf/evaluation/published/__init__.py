"""Numbers that others published, from the outputs and verdicts that they published: a check of our ruler."""

"""A page on which people rank responses: rankings train a reward model, verdicts compare.

Begin with `session`, what a labeler is shown and may say. `items` are the responses, `store` keeps every judgement in
SQLite, `server` serves the page, `agreement` compares labelers, `export` writes files that the other stages read.
"""

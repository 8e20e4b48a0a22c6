"""The comparison of models on held-out prompts: `summary` is its report as data, `text` in words, `page` as a page.

`answers` is what each candidate gave, `by_judge` what each judge makes of it; `plots`, `points`, `curves` and the
tables are parts of the page.
"""

"""What others have published, measured with our ruler: their samples and their verdicts.

`samples` and `verdicts` read files; `differences` and `verdicts_summary` measure; `*_text` and `*_page` show.
"""

"""Tasks with right answers.

`benchmarks` (built in, a file, or the harness behind `lm_eval`), `references` and `text_metrics`. `qa_metrics` are
SQuAD's and DROP's exact match and F1.
"""

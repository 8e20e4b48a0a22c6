"""What a run's sweeps found: frontiers of score against KL, sizes, ablations, in words, tables and figures.

Begin with `gather`, which finds the policies; `measure` has them answer and judged, `summary` and `points` average over
prompts and seeds, `claims` asks the paper's questions; `page`, `plots` and `tables` show.
"""

"""What follows from verdicts and scores, with intervals: arrays in, numbers out.

Begin with `win_rates`. `ratings` are Elo and Bradley-Terry, `agreement` is Krippendorff's and pairwise,
`length_control` and `position` take out what is not quality, `seeds` and `matched_kl` compare sweeps, `best_of_n` and
`overoptimisation` are Gao et al.'s estimators and curves.
"""

"""Reward models from ranked completions (arXiv:2203.02155, equation 1).

Begin with `trainer`, whose batches are prompts with their K completions. `collect` has completions drawn and ranked,
`rankings` keeps them as files and batches, `metrics` and `evaluation` measure, `bias` sets demonstrations to score 0.
"""

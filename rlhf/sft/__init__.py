"""Supervised fine-tuning on demonstrations, by TRL's trainer.

Begin with `trainer`. `rows` makes its rows of demonstrations, `subset` chooses some of them, `held_out` samples
held-out prompts while it trains and has a reward model judge them.
"""

"""Pure tensor maths, importing torch alone: log-probs, KL, rewards, advantages, losses.

Begin with `losses`; each function says its equation, shapes and what its mean divides by.
"""

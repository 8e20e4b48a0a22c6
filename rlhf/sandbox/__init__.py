"""The built-in instruction world, all from a seed.

Begin with `source`, the data it gives. `world` holds the facts, `tasks` the families of prompts, `writers` imperfect
demonstrations, `gold` the true score, `labeler` noisy rankings by it, `corpus` pretraining text, `benchmark` questions.
"""

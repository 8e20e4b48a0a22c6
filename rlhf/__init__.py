"""Three-stage RLHF in the style of InstructGPT: supervised fine-tuning, a reward model, PPO."""

__version__ = "0.1.0"

"""The reward model: K-way training on ranked completions, its bias, and what it gets right on held-out rankings."""

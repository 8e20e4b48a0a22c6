"""A data set of instructions, grown from seed tasks with a model (arXiv:2212.10560).

Begin with `rounds`: `prompts` asks, `local` or `server` writes, `parse` reads, `filters` and `pool` leave out what is
bad or known, `store` keeps what is left, so that a kill costs one round at most.
"""

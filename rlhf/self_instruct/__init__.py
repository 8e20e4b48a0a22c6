"""Self-Instruct: a model grows a set of instructions from a few seed tasks (Wang et al. 2022, arXiv:2212.10560)."""

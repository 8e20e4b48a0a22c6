"""How any model is trained: one engine without and one with DeepSpeed, one Trainer, and what is round them.

Begin with `engine`, one step of one model; `zero` is the same sharded. `trainer` is the Trainer that pretraining, SFT
and reward models share. `context` is what a stage is given, `tracking` where its metrics go, `stopping` how a signal
ends it between two steps, `torch_settings` and `allocator` how torch is set before it.
"""

"""PPO with a KL penalty (arXiv:1707.06347, arXiv:2203.02155).

Begin with stages/ppo.py, which calls these in order: `setup` loads the `roles`, `rollout` and `engines/` draw
responses, `scoring` scores them, `experience` makes rewards and advantages with the maths of `rlhf.rl`, `update` steps
the policy and the value model, `training` holds the state that a checkpoint saves.
"""

"""PPO: rollout, experience, the update, and the averaged policy."""

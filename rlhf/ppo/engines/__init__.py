"""Rollout engines: who draws PPO's responses. One interface, one module an engine."""

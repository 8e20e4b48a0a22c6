"""The built-in instruction world, all from a seed: facts, tasks, imperfect writers, noisy labelers, gold score."""

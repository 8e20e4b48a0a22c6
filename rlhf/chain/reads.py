"""Fingerprints of what a stage reads beside its parents, by which its manifest knows it again."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

from rlhf.config import Config, JudgeName

if TYPE_CHECKING:
    from rlhf.data.records import DataSource


def reward_fn(config: Config, source: DataSource) -> str | None:
    """Of the code that scores PPO's responses; None without any. Its name is in the config."""
    from rlhf.ppo.reward_fn import load_reward_fn

    return None if config.ppo.reward_fn is None else load_reward_fn(config.ppo.reward_fn).source_hash


def compared(config: Config, source: DataSource) -> dict[str, Any]:
    """Of the prompts, the benchmarks and the files of outputs."""
    from rlhf.evaluation.answering import outputs
    from rlhf.evaluation.tasks import benchmarks

    read = dict(source.fingerprint())
    if config.compare.names_benchmarks:
        read |= benchmarks.fingerprint(config.compare)
    if config.compare.outputs:
        read["outputs"] = outputs.fingerprints(config.compare.outputs)
    return read


def judge_prompt(config: Config, source: DataSource) -> str | None:
    """Of the words that an LLM judge is asked with; None without one."""
    from rlhf.evaluation.judges.llm_prompt import load_template

    if JudgeName.llm not in config.judge.names:
        return None
    return hashlib.sha256(load_template(config.judge.llm.prompt).encode()).hexdigest()


def seed_tasks(config: Config, source: DataSource) -> dict[str, Any]:
    """Of the tasks that Self-Instruct starts from, which are all it reads."""
    from rlhf.self_instruct.seeds import load_seeds, seeds_hash

    return {"seeds_sha256": seeds_hash(load_seeds(config.self_instruct.seeds, config.data.sandbox.world_seed))}

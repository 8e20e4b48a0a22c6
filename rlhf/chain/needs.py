"""What a stage would find missing when its turn comes: refused before any stage of a chain has begun."""

from __future__ import annotations

from rlhf.config import Config, JudgeName


def of_training(config: Config) -> None:
    from rlhf.models.quantization import require_bitsandbytes

    require_bitsandbytes(config.model.quantization)


def of_ppo(config: Config) -> None:
    from rlhf.ppo.engines.requirements import require_installed
    from rlhf.ppo.reward_fn import load_reward_fn

    of_training(config)
    require_installed(config.rollout)
    if config.ppo.reward_fn is not None:
        load_reward_fn(config.ppo.reward_fn)


def of_compare(config: Config) -> None:
    from rlhf.evaluation.answering import outputs
    from rlhf.evaluation.judges.llm_prompt import load_template
    from rlhf.evaluation.tasks import benchmarks

    if config.compare.outputs:
        outputs.require_files(config.compare.outputs)
    if config.compare.names_benchmarks:
        benchmarks.require(config.compare)
    if JudgeName.llm in config.judge.names:
        load_template(config.judge.llm.prompt)

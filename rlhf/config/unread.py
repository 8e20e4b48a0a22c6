"""Keys that nothing reads under the other settings: typed on the command line, they are refused and not passed over."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf.config import Config
from rlhf.config.choices import Advantage, DataSourceName, JudgeName, RolloutEngineName, StageName, ValueHead


@dataclass(frozen=True)
class _Rule:
    """Keys and nodes that are read in some configs alone."""

    keys: tuple[str, ...]
    are_read: Callable[[Config], bool]
    otherwise: str  # what is so where they are not, and what to set

    def holds(self, key: str) -> bool:
        return any(key == node or key.startswith(f"{node}.") for node in self.keys)


_OF_FILES = "path prompts_path subset split streaming columns ignore evaluation_fraction split_by_user max_rows quality"
_OF_VALUES = "value_model value_optim value_clip_range value_coef value_head value_warmup_iterations gamma gae_lambda"
_RULES = (
    _Rule(
        tuple(f"data.{name}" for name in _OF_FILES.split()),
        lambda c: c.data.source != DataSourceName.sandbox,
        "data=sandbox makes its own records; name a file with data=FILE, or a format with data=NAME data.path=PATH",
    ),
    _Rule(
        ("data.sandbox",),
        lambda c: c.data.source == DataSourceName.sandbox or c.stage == StageName.self_instruct,
        "the data are not the sandbox's; set data=sandbox",
    ),
    _Rule(
        ("data.mixture",),
        lambda c: c.data.source == DataSourceName.mixture,
        "the data are one source and no mixture; set data=mixture data.path=FILE.yaml",
    ),
    _Rule(
        ("judge.llm",),
        lambda c: JudgeName.llm in c.judge.names,
        "no language model judges; add llm to judge.names",
    ),
    _Rule(
        ("rollout.vllm",),
        lambda c: c.rollout.engine in (RolloutEngineName.vllm, RolloutEngineName.vllm_server),
        "vLLM draws no responses; set rollout=vllm or rollout=vllm_server",
    ),
    _Rule(
        tuple(f"ppo.{name}" for name in _OF_VALUES.split()),
        lambda c: c.ppo.advantage == Advantage.gae,
        "only ppo.advantage=gae has a value model",
    ),
    _Rule(
        ("ppo.value_coef",),
        lambda c: c.ppo.value_head == ValueHead.shared,
        "a value model of its own has its own loss; set ppo.value_head=shared",
    ),
    _Rule(("ppo.kl.horizon",), lambda c: c.ppo.kl.target is not None, "the KL coefficient is fixed; set ppo.kl.target"),
    _Rule(
        ("ppo.ptx.per_episode", "ppo.ptx.sequence_length"),
        lambda c: c.ppo.ptx.coef > 0,
        "there are no pretraining gradients; set ppo.ptx.coef",
    ),
    _Rule(
        ("ppo.length_penalty_from",),
        lambda c: c.ppo.length_penalty > 0,
        "no token costs anything; set ppo.length_penalty",
    ),
    _Rule(
        ("sft.reward_model",),
        lambda c: c.sft.needs_reward_model,
        "no reward model chooses; set sft.select_by=reward_model, or sft.subset=N sft.subset_rule=reward_model",
    ),
    _Rule(("sft.subset_rule",), lambda c: c.sft.subset is not None, "SFT takes all demonstrations; set sft.subset=N"),
    _Rule(
        ("model.lora.alpha", "model.lora.dropout", "model.lora.target_modules"),
        lambda c: c.model.lora.r > 0,
        "there are no adapters; set model.lora.r",
    ),
)


def first_unread(keys: Sequence[str], configs: Sequence[Config]) -> str | None:
    """A sentence about the first of `keys` that none of the configs reads; None where each is read in one of them."""
    for key in keys:
        for rule in _RULES:
            if rule.holds(key) and not any(rule.are_read(config) for config in configs):
                return f"{key} is read by nothing here: {rule.otherwise}, or leave it out."
    return None

"""judge.*: who says which response is better."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require
from rlhf.config.choices import JudgeName


@dataclass
class JudgeConfig:
    names: list[JudgeName] = field(default_factory=list)  # empty: the reward model, and gold where the data has it
    reward_model: str | None = None  # what the reward_model judge scores with; None: this run's reward model
    tie_margin: float = 0.0  # scores closer than this are a tie, in the judge's own unit

    def __post_init__(self) -> None:
        require(self.tie_margin >= 0, f"judge.tie_margin is {self.tie_margin}; use 0 or more.")

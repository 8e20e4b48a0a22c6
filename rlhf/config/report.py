"""report.*: what a run's sweeps found, in one page."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive


@dataclass
class ReportConfig:
    """Beside prompts, temperature, bootstrap_samples and side_by_side of compare.*, which a report reads too."""

    runs: list[str] = field(default_factory=list)  # further runs' folders whose policies are gathered beside this run's
    few_shot: int = 8  # demonstrations that base-few-shot reads; 0: it is left out
    best_of: int = 64  # samples a prompt for best-of-n, which is shown for 1, 2, 4, ... up to this; 0: it is left out
    best_of_prompts: int = 200  # prompts that are sampled so often, the first ones
    matched_kl: list[float] = field(default_factory=list)  # nats at which settings are compared; []: chosen by the data

    def __post_init__(self) -> None:
        require_positive("report", best_of_prompts=self.best_of_prompts)
        for key in ("few_shot", "best_of"):
            value = getattr(self, key)
            require(value >= 0, f"report.{key} is {value}; use 0 (off) or more.")
        require(
            all(kl > 0 for kl in self.matched_kl),
            f"report.matched_kl is {self.matched_kl}; give KLs above 0, in nats, such as [0.5,1,2].",
        )

"""compare.*: who is compared, on what, and what others published."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive
from rlhf.config.choices import TextMetric


@dataclass
class CompareConfig:
    candidates: dict[str, str] = field(default_factory=dict)  # further models by name: PATH_OR_HUB_ID
    outputs: dict[str, str] = field(default_factory=dict)  # answers in files by name: FILE, or FILE@NAME in it
    few_shot: int = 0  # training demonstrations that the candidate base-few-shot reads before a prompt; 0: it is none
    best_of: list[int] = field(default_factory=list)  # N: sft-best-of-N, the reward model's choice of N; []: none
    baseline: str = "sft"  # whose responses the others are judged against
    prompts: int = 400
    temperature: float | None = None  # of the responses that are judged; None: rollout.temperature
    bootstrap_samples: int = 2000
    side_by_side: int = 24  # prompts shown in the report with every candidate's response
    samples: str | None = None  # a table of published outputs beside references, scored by metric; no model is loaded
    metric: TextMetric | None = None  # of samples
    verdicts: str | None = None  # a file of published verdicts, as AlpacaEval's annotations; no model is loaded

    def __post_init__(self) -> None:
        require_positive(
            "compare",
            prompts=self.prompts,
            bootstrap_samples=self.bootstrap_samples,
            side_by_side=self.side_by_side,
        )
        require(self.few_shot >= 0, f"compare.few_shot is {self.few_shot}; use 1 or more demonstrations, or 0 (off).")
        require(
            all(count > 1 for count in self.best_of) and len(set(self.best_of)) == len(self.best_of),
            f"compare.best_of is {self.best_of}; use different numbers of samples, 2 or more each, such as [4,16].",
        )
        twice = next((name for name in self.outputs if name in self.candidates), None)
        require(twice is None, f"compare.outputs and compare.candidates both name {twice}; choose another name.")
        require(
            self.temperature is None or self.temperature > 0,
            f"compare.temperature is {self.temperature}; use more than 0 (0.01 is close to greedy), or null.",
        )
        require(
            (self.samples is None) == (self.metric is None),
            "compare.samples=FILE and compare.metric=bleu|rouge belong together; set both or neither.",
        )
        require(
            self.samples is None or self.verdicts is None,
            "compare.samples and compare.verdicts are two reports; leave one out.",
        )

    @property
    def of_published(self) -> bool:
        """Whether what others published is read, and no candidate answers."""
        return self.samples is not None or self.verdicts is not None

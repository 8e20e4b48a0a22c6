"""compare.*: who is compared, on what, and what others published."""

from __future__ import annotations

from dataclasses import dataclass, field

from rlhf.config.checks import require, require_positive
from rlhf.config.choices import TextMetric


@dataclass
class CompareConfig:
    candidates: dict[str, str] = field(default_factory=dict)  # further models by name: PATH_OR_HUB_ID
    baseline: str = "sft"  # whose responses the others are judged against
    prompts: int = 400
    temperature: float | None = None  # of the responses that are judged; None: rollout.temperature
    bootstrap_samples: int = 2000
    metrics: list[TextMetric] = field(default_factory=list)  # of answers, where the data has references; []: none
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
        require(
            self.temperature is None or self.temperature > 0,
            f"compare.temperature is {self.temperature}; use more than 0 (0.01 is close to greedy), or null.",
        )
        require(
            (self.samples is None) == (self.metric is None),
            "compare.samples=FILE and compare.metric=bleu|rouge|squad|drop|accuracy belong together; set both or "
            "neither.",
        )
        require(
            self.samples is None or self.verdicts is None,
            "compare.samples and compare.verdicts are two reports; leave one out.",
        )
        require(
            not (self.metrics and self.of_published),
            "compare.metrics is of the answers of candidates, and no model answers here; leave it out, and for "
            "compare.samples set compare.metric.",
        )

    @property
    def of_published(self) -> bool:
        """Whether what others published is read, and no candidate answers."""
        return self.samples is not None or self.verdicts is not None

"""What a candidate answered, and what was measured of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.evaluation.judges.judge import Verdicts


@dataclass(frozen=True)
class Answers:
    """One candidate's answers to the shared prompts, in their order."""

    path: str  # of its model, or of its file of outputs
    texts: list[str]
    tokens: list[int]  # of each response, the end token included
    ended: list[bool]  # False: cut at rollout.max_new_tokens
    scores: dict[str, list[float]]  # by judge, of those that score
    kl: list[float] | None  # log p(response) under the candidate minus under SFT, nats; None: not defined
    text_loss: float | None  # on held-out documents, nats a token; None: no documents, or another tokenizer
    benchmarks: dict[str, Any] = field(default_factory=dict)  # by name, as benchmarks.measure gives them
    right: tuple[float, ...] = ()  # of the held-out tasks' items, 1 for one that it gets right, else 0
    about: Mapping[str, Any] = field(default_factory=dict)  # what else the report says of it: `candidates.describe`
    verdicts: dict[str, Verdicts] = field(default_factory=dict)  # by judge, of those that compare

"""The K-way loss again, with loops, in float64: InstructGPT's equation 1 with ties dropped and Llama 2's margin."""

from __future__ import annotations

import math
from collections.abc import Sequence


def kway_loss(
    scores: Sequence[Sequence[float]],
    ranks: Sequence[Sequence[int]],
    margins: Sequence[Sequence[float]] | None = None,
) -> float:
    prompts = []
    for p in range(len(scores)):
        losses = []
        for i in range(len(scores[p])):
            for j in range(len(scores[p])):
                if ranks[p][i] < ranks[p][j]:
                    x = scores[p][i] - scores[p][j]
                    if margins is not None:
                        x -= max(0.0, margins[p][i] - margins[p][j])
                    losses.append(max(-x, 0.0) + math.log1p(math.exp(-abs(x))))
        if losses:
            prompts.append(sum(losses) / len(losses))
    return sum(prompts) / len(prompts) if prompts else 0.0

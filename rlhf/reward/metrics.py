"""What a reward model gets right on held-out rankings, beside what trivial rules get."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import combinations

import torch

from rlhf.data.records import Ranking
from rlhf.rl.kway import kway_loss

_CALIBRATION_BINS = 10


@dataclass(frozen=True)
class Pair:
    """Two completions of a prompt, the labeler's better one first."""

    k: int  # completions of the prompt
    difference: float  # score of the better minus score of the worse
    length_difference: int  # characters
    worth_difference: float | None  # on the labeler's scale, when the data has it


def ranking_metrics(rankings: Sequence[Ranking], scores: Sequence[Sequence[float]]) -> dict[str, float]:
    """Accuracy and its kin over all pairs of all prompts; ties of the labeler are no pairs, ties in score count half.

    eval/loss            K-way loss, mean over prompts
    eval/accuracy        share of pairs whose better completion scores higher
    eval/accuracy_gold   the same over pairs that noise-free scores tell apart (the sandbox)
    eval/accuracy_longest  the same when the longer completion wins: a floor; a coin gets 0.5
    eval/margin          mean score difference, better minus worse
    eval/calibration     expected calibration error of sigmoid(|difference|) in ten bins, from 0 (calibrated) to 0.5
    eval/accuracy_k4 ..  by completions of the prompt
    eval/accuracy_margin_low, _mid, _high  by thirds of the pairs' worth difference: low ones are hard to agree on
    """
    pairs = [
        pair for ranking, row in zip(rankings, scores, strict=True) for pair in _pairs(ranking, row, ranking.ranks)
    ]
    metrics = {"eval/loss": _loss(rankings, scores), "eval/pairs": float(len(pairs))}
    if not pairs:
        return metrics
    metrics["eval/accuracy"] = accuracy([pair.difference for pair in pairs])
    metrics["eval/accuracy_longest"] = accuracy([pair.length_difference for pair in pairs])
    metrics["eval/margin"] = sum(pair.difference for pair in pairs) / len(pairs)
    metrics["eval/calibration"] = calibration_error([pair.difference for pair in pairs])
    for k in sorted({pair.k for pair in pairs}):
        metrics[f"eval/accuracy_k{k}"] = accuracy([pair.difference for pair in pairs if pair.k == k])
    known = sorted((p for p in pairs if p.worth_difference is not None), key=lambda p: p.worth_difference or 0.0)
    if len(known) >= 3:
        thirds = {"low": known[: len(known) // 3], "high": known[-(len(known) // 3) :]}
        thirds["mid"] = known[len(known) // 3 : -(len(known) // 3)]
        for name, third in thirds.items():
            metrics[f"eval/accuracy_margin_{name}"] = accuracy([pair.difference for pair in third])
    gold = [
        pair.difference
        for ranking, row in zip(rankings, scores, strict=True)
        if ranking.gold_scores
        for pair in _pairs(ranking, row, [-score for score in ranking.gold_scores])
    ]
    if gold:
        metrics["eval/accuracy_gold"] = accuracy(gold)
    return metrics


def _pairs(ranking: Ranking, scores: Sequence[float], ranks: Sequence[float]) -> Iterator[Pair]:
    """Pairs that `ranks` (lower is better) tell apart."""
    for i, j in combinations(range(len(ranks)), 2):
        if ranks[i] == ranks[j]:
            continue
        better, worse = (i, j) if ranks[i] < ranks[j] else (j, i)
        worth = abs(ranking.margins[better] - ranking.margins[worse]) if ranking.margins else None
        length = len(ranking.completions[better]) - len(ranking.completions[worse])
        yield Pair(len(ranks), scores[better] - scores[worse], length, worth)


def accuracy(differences: Sequence[float]) -> float:
    """Share of differences above 0; those of exactly 0 count half."""
    return sum(1.0 if d > 0 else 0.5 if d == 0 else 0.0 for d in differences) / len(differences)


def calibration_error(differences: Sequence[float]) -> float:
    """Expected calibration error: |accuracy - confidence| in ten bins of confidence from 0.5 to 1, weighted by size."""
    bins: list[list[tuple[float, float]]] = [[] for _ in range(_CALIBRATION_BINS)]
    for difference in differences:
        confidence = 1 / (1 + math.exp(-min(abs(difference), 700.0)))
        index = min(int((confidence - 0.5) * 2 * _CALIBRATION_BINS), _CALIBRATION_BINS - 1)
        bins[index].append((confidence, 1.0 if difference > 0 else 0.5 if difference == 0 else 0.0))
    gaps = [abs(sum(right for _, right in b) - sum(confidence for confidence, _ in b)) for b in bins if b]
    return sum(gaps) / len(differences)


def _loss(rankings: Sequence[Ranking], scores: Sequence[Sequence[float]]) -> float:
    width = max(len(row) for row in scores)
    padded = torch.zeros((len(scores), width), dtype=torch.float64)
    ranks, mask = torch.zeros(padded.shape, dtype=torch.long), torch.zeros(padded.shape, dtype=torch.bool)
    for p, (ranking, row) in enumerate(zip(rankings, scores, strict=True)):
        padded[p, : len(row)] = torch.tensor(row, dtype=torch.float64)
        ranks[p, : len(row)] = torch.tensor(ranking.ranks)
        mask[p, : len(row)] = True
    return float(kway_loss(padded, ranks, mask))

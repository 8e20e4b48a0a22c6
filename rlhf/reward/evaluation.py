"""Scores of held-out rankings and demonstrations by a reward model, and the table of samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import islice
from typing import Any

from rlhf.data.encoding import EncodedDemonstration, EncodedRanking
from rlhf.data.templates import ChatTemplate
from rlhf.models.scores import sequence_scores
from rlhf.models.sharding import gathered
from rlhf.reward.metrics import ranking_metrics

SAMPLES_SHOWN = 6
TOKEN_BUDGET = 8192


def score_rankings(model: Any, rankings: Sequence[EncodedRanking]) -> list[list[float]]:
    """One list of scores a ranking."""
    sequences = [ids for ranking in rankings for ids in ranking.sequences]
    with gathered(model):
        scores = iter(sequence_scores(model, sequences, token_budget=TOKEN_BUDGET).tolist())
    return [list(islice(scores, len(ranking.sequences))) for ranking in rankings]


def mean_demonstration_score(model: Any, demonstrations: Sequence[EncodedDemonstration]) -> float:
    with gathered(model):
        scores = sequence_scores(model, demonstration_sequences(demonstrations), token_budget=TOKEN_BUDGET)
    return float(scores.mean())


def demonstration_sequences(demonstrations: Sequence[EncodedDemonstration]) -> list[list[int]]:
    return [demonstration.prompt_ids + demonstration.response_ids for demonstration in demonstrations]


def evaluate(
    model: Any, rankings: Sequence[EncodedRanking], template: ChatTemplate
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Metrics over all held-out rankings, and a few of them for the sample table, best score first."""
    scores = score_rankings(model, rankings)
    metrics = ranking_metrics([ranking.ranking for ranking in rankings], scores)
    rows = []
    for encoded, row in zip(rankings[:SAMPLES_SHOWN], scores, strict=False):
        ranking = encoded.ranking
        prompt = template.prompt_text(ranking.prompt)
        for index in sorted(range(len(row)), key=lambda i: -row[i]):
            sample = {"prompt": prompt, "response": ranking.completions[index], "rank": ranking.ranks[index]}
            gold = {"gold_score": ranking.gold_scores[index]} if ranking.gold_scores else {}
            rows.append({**sample, **gold, "score": row[index]})
    return metrics, rows

from __future__ import annotations

import math
import random

import pytest

from rlhf.data.records import Ranking
from rlhf.reward.metrics import accuracy, calibration_error, ranking_metrics
from tests.support.fakes import prompt


def ranking(ranks: tuple[int, ...], **settings: tuple[float, ...]) -> Ranking:
    return Ranking(prompt("p"), tuple("x" * (i + 1) for i in range(len(ranks))), ranks, **settings)


def test_accuracy_counts_pairs_that_are_not_tied() -> None:
    metrics = ranking_metrics([ranking((0, 1, 1)), ranking((1, 0))], [[2.0, 1.0, 3.0], [0.0, 5.0]])
    assert metrics["eval/pairs"] == 3
    assert metrics["eval/accuracy"] == pytest.approx(2 / 3)
    assert metrics["eval/accuracy_k3"] == 0.5
    assert metrics["eval/accuracy_k2"] == 1.0
    assert metrics["eval/margin"] == pytest.approx((1 - 1 + 5) / 3)
    assert metrics["eval/accuracy_longest"] == pytest.approx(1 / 3)


def test_equal_scores_are_a_coin() -> None:
    metrics = ranking_metrics([ranking((0, 1, 2))], [[1.0, 1.0, 1.0]])
    assert metrics["eval/accuracy"] == 0.5
    assert metrics["eval/loss"] == pytest.approx(math.log(2))
    assert metrics["eval/calibration"] == 0.0


def test_gold_accuracy_uses_noise_free_scores() -> None:
    row = ranking((1, 0, 1), gold_scores=(0.9, 0.1, 0.9))
    metrics = ranking_metrics([row], [[2.0, 1.0, 3.0]])
    assert metrics["eval/accuracy"] == 0.0
    assert metrics["eval/accuracy_gold"] == 1.0


def test_thirds_by_margin_split_the_pairs() -> None:
    rows = [ranking((0, 1), margins=(float(i), 0.0)) for i in range(1, 10)]
    scores = [[1.0, 0.0] if i > 3 else [0.0, 1.0] for i in range(1, 10)]
    metrics = ranking_metrics(rows, scores)
    assert metrics["eval/accuracy_margin_low"] == 0.0
    assert metrics["eval/accuracy_margin_mid"] == 1.0
    assert metrics["eval/accuracy_margin_high"] == 1.0


def test_scores_that_mean_what_they_say_are_calibrated_and_bold_ones_are_not() -> None:
    rng = random.Random(0)
    honest = []
    for _ in range(20000):
        difference = rng.uniform(0, 3)
        right = rng.random() < 1 / (1 + math.exp(-difference))
        honest.append(difference if right else -difference)
    assert calibration_error(honest) < 0.02
    assert calibration_error([10 * difference for difference in honest]) > 0.15
    assert accuracy(honest) > 0.7

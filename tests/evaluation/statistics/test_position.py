from __future__ import annotations

import math

import pytest
from scipy.stats import beta

from rlhf.evaluation.statistics.position import consistency, position_bias


def test_the_share_leaves_ties_and_missing_verdicts_out_and_its_interval_is_clopper_pearson() -> None:
    found = position_bias([1] * 14 + [0.8] + [0] * 5 + [0.5, math.nan])
    assert found is not None
    assert (found.share, found.n) == (0.75, 20)
    # Clopper and Pearson's bounds are quantiles of beta distributions.
    assert found.low == pytest.approx(beta.ppf(0.025, 15, 6))
    assert found.high == pytest.approx(beta.ppf(0.975, 16, 5))
    # Two-sided by symmetry: 2 P(X >= 15) for 20 fair coins.
    assert found.p_value == pytest.approx(2 * sum(math.comb(20, k) for k in range(15, 21)) / 2**20)


def test_without_a_decided_verdict_there_is_no_number() -> None:
    assert position_bias([0.5, math.nan]) is None
    assert consistency([0.5, 1, math.nan], [1, 0.5, 0]) is None


def test_a_consistent_judge_names_the_same_model_in_both_orders() -> None:
    # The first shown won in one order and lost in the other: the same model. Won in both: whoever is first.
    assert consistency([1, 0, 1, 0.5], [0, 1, 1, 1]) == (pytest.approx(2 / 3), 3)

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from rlhf.evaluation.statistics.best_of_n import best_of, kl, powers_of_two, weights


def slow_best_of(scores: list[float], values: list[float], n: int) -> float:
    """Over all subsets of n: the value of the one with the best score, ties shared equally."""
    total = 0.0
    subsets = list(itertools.combinations(range(len(scores)), n))
    for subset in subsets:
        top = max(scores[i] for i in subset)
        best = [values[i] for i in subset if scores[i] == top]
        total += sum(best) / len(best)
    return total / len(subsets)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 7])
def test_estimate_is_the_mean_over_all_subsets(n: int) -> None:
    rng = np.random.default_rng(n)
    scores, values = rng.normal(size=(3, 7)), rng.normal(size=(3, 7))
    expected = [slow_best_of(list(s), list(v), n) for s, v in zip(scores, values, strict=True)]
    np.testing.assert_allclose(best_of(scores, values, n), expected, rtol=1e-12)


@pytest.mark.parametrize("n", [1, 2, 4])
def test_ties_share_their_chances(n: int) -> None:
    scores, values = [1.0, 0.0, 1.0, 0.0, 2.0], [5.0, 1.0, 3.0, 7.0, 4.0]
    assert best_of([scores], [values], n)[0] == pytest.approx(slow_best_of(scores, values, n))
    np.testing.assert_allclose(weights([[3.0] * 4], 2), 0.25)


def test_one_of_one_is_the_mean_and_one_of_all_the_best() -> None:
    scores, values = np.array([[0.1, 0.9, 0.5]]), np.array([[1.0, 2.0, 6.0]])
    assert best_of(scores, values, 1)[0] == pytest.approx(3.0)
    assert best_of(scores, values, 3)[0] == 2.0
    with pytest.raises(ValueError, match="best of 4 needs 4 samples a prompt, and there are 3"):
        best_of(scores, values, 4)


def test_kl_is_that_of_the_best_of_n_distribution() -> None:
    """Against its definition: the best of n uniform numbers has the density n u^(n-1)."""
    assert kl(1) == 0
    for n in (2, 16, 64):
        u = (np.arange(200_000) + 0.5) / 200_000
        density = n * u ** (n - 1)
        assert kl(n) == pytest.approx(float(np.mean(density * np.log(density + 1e-300))), abs=1e-4)
    assert kl(64) == pytest.approx(math.log(64) - 63 / 64)


def test_a_larger_n_picks_better_ones() -> None:
    scores = np.random.default_rng(0).normal(size=(5, 8))
    means = [best_of(scores, scores, n).mean() for n in powers_of_two(8)]
    assert means == sorted(means)
    assert powers_of_two(8) == [1, 2, 4, 8]
    assert powers_of_two(6) == [1, 2, 4, 6]


def test_the_kl_of_the_best_of_n_bounds_that_of_a_model_small_enough_to_enumerate() -> None:
    probabilities = (0.5, 0.3, 0.2)  # of three responses, the best one last
    for n in (2, 4, 16):
        below = [sum(probabilities[: i + 1]) ** n for i in range(3)]
        chosen = [below[0], below[1] - below[0], below[2] - below[1]]
        exact = sum(c * math.log(c / p) for c, p in zip(chosen, probabilities, strict=True))
        assert 0 < exact <= kl(n)

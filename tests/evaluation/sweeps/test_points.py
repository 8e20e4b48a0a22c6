from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from rlhf.evaluation.statistics.win_rates import Bootstrap
from rlhf.evaluation.sweeps.points import difference, share, value, value_of_seeds

BOOTSTRAP = Bootstrap(200, samples=2000, seed=0)
RNG = np.random.default_rng(0)
PROMPTS = RNG.normal(size=200)


def test_one_seed_has_the_interval_of_its_prompts() -> None:
    found, alone = value([PROMPTS], BOOTSTRAP), BOOTSTRAP.estimate(PROMPTS)
    assert (found.mean, found.low, found.high) == (alone.mean, alone.low, alone.high)
    assert found.sd_seeds is None


def test_seeds_without_noise_of_prompts_have_students_interval() -> None:
    means = [0.2, 0.5, 0.6]
    found = value([np.full(200, mean) for mean in means], BOOTSTRAP)
    low, high = stats.t.interval(0.95, 2, loc=np.mean(means), scale=stats.sem(means))
    assert (found.low, found.high) == (pytest.approx(low), pytest.approx(high))
    assert found.sd_seeds == pytest.approx(np.std(means, ddof=1))
    assert value_of_seeds(means).ci == pytest.approx([low, high])
    assert value_of_seeds([0.3]).ci == [0.3, 0.3]


def test_both_parts_add_in_quadrature() -> None:
    arrays = [PROMPTS, PROMPTS + 0.3]
    found, prompts, seeds = value(arrays, BOOTSTRAP), BOOTSTRAP.estimate(PROMPTS + 0.15), value_of_seeds([0.0, 0.3])
    assert found.high - found.mean == pytest.approx(math.hypot(prompts.high - prompts.mean, seeds.high - seeds.mean))
    assert found.mean - found.low == pytest.approx(math.hypot(prompts.mean - prompts.low, seeds.mean - seeds.low))


def test_intervals_hold_the_truth_about_as_often_as_they_say() -> None:
    """Prompts and seeds are drawn anew 300 times; the truth is 0."""
    bootstrap = Bootstrap(60, samples=300, seed=1)
    rng = np.random.default_rng(2)
    inside = 0
    for _ in range(300):
        prompts = rng.normal(size=60)
        arrays = [prompts + 0.3 * rng.normal() for _ in range(3)]
        found = value(arrays, bootstrap)
        inside += found.low <= 0 <= found.high
    assert inside / 300 > 0.92


def test_difference_on_the_same_prompts_is_sharper_than_that_of_two_intervals() -> None:
    found = difference([PROMPTS + 0.1], [PROMPTS], BOOTSTRAP)
    assert found.mean == pytest.approx(0.1)
    assert found.ci == pytest.approx([0.1, 0.1])


def test_the_luck_of_both_sides_seeds_adds_in_quadrature() -> None:
    luck = [0.0, 1.0, 2.0]
    one, other = [np.full(200, x + 0.1) for x in luck], [np.full(200, x) for x in luck]
    found = difference(one, other, BOOTSTRAP)
    half = stats.t.ppf(0.975, 2) / math.sqrt(3)
    assert found.mean == pytest.approx(0.1)
    assert found.high - found.mean == pytest.approx(math.hypot(half, half))


def test_a_share_stays_between_0_and_1() -> None:
    assert value([np.full(200, 0.2), np.full(200, 0.9)], BOOTSTRAP).low < 0
    assert share([np.full(200, 0.2), np.full(200, 0.9)], BOOTSTRAP).ci == [0, 1]

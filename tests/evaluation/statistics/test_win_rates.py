from __future__ import annotations

import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.evaluation.statistics.win_rates import Bootstrap, by_task, of_shares, verdicts


def slow_interval(values: list[float], samples: int, seed: int) -> tuple[float, float]:
    """Percentile bootstrap of the mean, prompt by prompt, from Efron and Tibshirani's description."""
    draw = random.Random(seed)
    n = len(values)
    means = sorted(sum(values[draw.randrange(n)] for _ in range(n)) / n for _ in range(samples))
    return means[round(0.025 * (samples - 1))], means[round(0.975 * (samples - 1))]


def test_the_interval_agrees_with_a_slow_bootstrap_and_with_the_normal_limit() -> None:
    values = np.random.default_rng(0).choice([0.0, 0.5, 1.0], p=[0.3, 0.1, 0.6], size=200)
    estimate = Bootstrap(200, samples=4000, seed=1).estimate(values)
    low, high = slow_interval(values.tolist(), 4000, seed=2)
    assert estimate.mean == pytest.approx(values.mean())
    assert estimate.ci == pytest.approx([low, high], abs=0.008)
    half_width = 1.96 * values.std() / np.sqrt(200)
    assert estimate.ci == pytest.approx([values.mean() - half_width, values.mean() + half_width], abs=0.008)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    generator = np.random.default_rng(3)
    bootstrap = Bootstrap(100, samples=500, seed=0)
    covered = 0
    for _ in range(400):
        estimate = bootstrap.estimate(generator.random(100) < 0.7)
        covered += estimate.low <= 0.7 <= estimate.high
    assert 0.91 <= covered / 400 <= 0.98


def test_better_equal_and_worse_scores_are_wins_ties_and_losses() -> None:
    assert verdicts([1.0, 0.5, 0.0], [0.0, 0.5, 1.0], tie_margin=0.0).tolist() == [1.0, 0.5, 0.0]
    assert verdicts([1.0, 1.25, 0.0], [0.8, 1.0, 0.5], tie_margin=0.25).tolist() == [0.5, 0.5, 0.0]


def test_candidates_must_answer_the_same_prompts() -> None:
    with pytest.raises(ValueError, match="same prompts"):
        verdicts([1.0], [1.0, 2.0], tie_margin=0.0)


scores = st.lists(st.floats(-10, 10), min_size=1, max_size=30)


@settings(deadline=None, max_examples=50)
@given(scores, st.floats(0, 2), st.data())
def test_swapping_candidates_mirrors_the_win_rate_and_its_interval(
    ours: list[float], margin: float, data: st.DataObject
) -> None:
    theirs = data.draw(st.lists(st.floats(-10, 10), min_size=len(ours), max_size=len(ours)))
    bootstrap = Bootstrap(len(ours), samples=200, seed=0)
    forth = bootstrap.estimate(verdicts(ours, theirs, tie_margin=margin))
    back = bootstrap.estimate(verdicts(theirs, ours, tie_margin=margin))
    assert forth.mean == pytest.approx(1 - back.mean)
    assert forth.ci == pytest.approx([1 - back.high, 1 - back.low])
    assert 0 <= forth.low <= forth.mean <= forth.high <= 1


@settings(deadline=None, max_examples=30)
@given(scores)
def test_a_candidate_against_itself_wins_half_with_no_doubt(ours: list[float]) -> None:
    estimate = Bootstrap(len(ours), samples=100, seed=0).estimate(verdicts(ours, ours, tie_margin=0.0))
    assert (estimate.mean, estimate.low, estimate.high) == (0.5, 0.5, 0.5)


def test_winning_every_prompt_is_a_win_rate_of_one() -> None:
    estimate = Bootstrap(7, samples=100, seed=0).estimate(verdicts(np.ones(7), np.zeros(7), tie_margin=0.0))
    assert (estimate.mean, estimate.low, estimate.high) == (1.0, 1.0, 1.0)


def test_the_same_seed_gives_the_same_interval_and_more_prompts_a_narrower_one() -> None:
    values = np.random.default_rng(0).random(400)
    few, many = (Bootstrap(n, samples=500, seed=5).estimate(values[:n]) for n in (25, 400))
    assert Bootstrap(400, samples=500, seed=5).estimate(values) == many
    assert many.high - many.low < (few.high - few.low) / 2


def test_prompts_without_a_task_are_in_no_group() -> None:
    groups = by_task(["sort", "", "add", "sort"])
    assert {task: rows.tolist() for task, rows in groups.items()} == {"add": [2], "sort": [0, 3]}


def test_a_ratio_draws_all_values_of_a_prompt_together() -> None:
    generator = np.random.default_rng(1)
    values = generator.random((150, 3))
    bootstrap = Bootstrap(150, samples=400, seed=0)
    # With as many values in each prompt it is the mean of the prompts' means, whose values go together.
    found = bootstrap.ratio(values.sum(axis=1), np.full(150, 3))
    expected = bootstrap.estimate(values.mean(axis=1))
    assert (found.mean, *found.ci) == pytest.approx((expected.mean, *expected.ci))
    assert (found.n, expected.n) == (450, 150)


def test_a_ratio_agrees_with_a_slow_bootstrap_where_prompts_have_unlike_numbers_of_values() -> None:
    generator = np.random.default_rng(2)
    counts = generator.integers(0, 4, size=60)
    values = [generator.random(count).tolist() for count in counts]
    draw = random.Random(3)
    ratios = []
    for _ in range(3000):
        drawn = [value for _ in range(60) for value in values[draw.randrange(60)]]
        ratios.append(sum(drawn) / len(drawn))
    ratios.sort()
    found = Bootstrap(60, samples=3000, seed=4).ratio([sum(of) for of in values], counts)
    assert found.mean == pytest.approx(sum(map(sum, values)) / counts.sum())
    assert found.ci == pytest.approx([ratios[75], ratios[2924]], abs=0.01)


def test_a_ratio_leaves_draws_without_a_value_out_and_refuses_no_value() -> None:
    found = Bootstrap(3, samples=200, seed=0).ratio([1, 0, 0], [2, 0, 0])
    assert (found.mean, found.low, found.high) == (0.5, 0.5, 0.5)
    with pytest.raises(ValueError, match="no values"):
        Bootstrap(3, samples=10, seed=0).ratio([0, 0, 0], [0, 0, 0])


def test_a_paired_difference_is_narrower_than_two_intervals_side_by_side() -> None:
    generator = np.random.default_rng(5)
    hardness = generator.normal(size=300)
    ours, theirs = hardness + 0.1 + generator.normal(0, 0.1, 300), hardness + generator.normal(0, 0.1, 300)
    bootstrap = Bootstrap(300, samples=1000, seed=0)
    found = bootstrap.difference(ours, theirs)
    assert found.mean == pytest.approx(np.mean(ours) - np.mean(theirs))
    half_width = 1.96 * np.std(ours - theirs) / np.sqrt(300)
    assert found.ci == pytest.approx([found.mean - half_width, found.mean + half_width], abs=0.004)
    assert bootstrap.estimate(ours).low < bootstrap.estimate(theirs).high  # side by side they overlap
    assert found.low > 0


def test_draws_that_miss_its_few_prompts_do_not_count() -> None:
    one = np.zeros(40)
    one[7] = 1
    for samples in (200, 1):
        few = Bootstrap(40, samples=samples, seed=0).ratio(one, one)
        assert (few.ci, few.n) == ([1.0, 1.0], 1)


@pytest.mark.parametrize(
    ("won", "low", "high"), [([1.0] * 20, 0.8389, 1.0), ([0.0] * 5, 0.0, 0.4345), ([1.0], 0.2065, 1.0)]
)
def test_wins_that_are_all_alike_are_no_certainty(won: list[float], low: float, high: float) -> None:
    """Wilson's interval, as R's prop.test(correct=FALSE) gives it."""
    found = of_shares(Bootstrap(len(won), samples=100, seed=0).estimate(won), won)
    assert (found.mean, found.low, found.high) == pytest.approx((won[0], low, high), abs=1e-4)


@pytest.mark.parametrize("values", [[0.0, 1.0, 1.0], [0.5, 0.5], [0.3, 0.3]])
def test_other_shares_keep_their_bootstrap(values: list[float]) -> None:
    estimate = Bootstrap(len(values), samples=100, seed=0).estimate(values)
    assert of_shares(estimate, values) == estimate

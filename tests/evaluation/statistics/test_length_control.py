from __future__ import annotations

import numpy as np
import pytest
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from rlhf.evaluation.statistics.length_control import LengthControlled, length_controlled


def simulated(
    n: int, seed: int, *, theta: float, phi: float, longer: float = 0.0, weighted: bool = False
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Verdicts of a judge with a known liking for length, `longer` standard deviations of it on our side."""
    generator = np.random.default_rng(seed)
    baseline = generator.integers(200, 1500, size=n)
    ours = np.maximum(baseline + generator.normal(longer * 300, 300, size=n).round(), 1)
    difference = ours - baseline
    chance = expit(theta + phi * np.tanh(difference / difference.std(ddof=1)))
    won = chance if weighted else (generator.random(n) < chance).astype(float)
    return won, ours, baseline


def controlled(won: np.ndarray, ours: np.ndarray, baseline: np.ndarray) -> LengthControlled:
    return length_controlled(won, ours, baseline, prompts=range(len(won)))


def slow_fit(won: np.ndarray, ours: np.ndarray, baseline: np.ndarray) -> np.ndarray:
    """The likelihood of section 3 without its third term, maximised by a search that knows no derivative."""
    difference = ours - baseline
    mediator = np.tanh(difference / difference.std(ddof=1))

    def loss(coefs: np.ndarray) -> float:
        logits = coefs[0] + coefs[1] * mediator
        return float(-(won * log_expit(logits) + (1 - won) * log_expit(-logits)).sum())

    return minimize(loss, [0.0, 0.0], method="Nelder-Mead", options={"xatol": 1e-9, "fatol": 1e-12}).x


@pytest.mark.parametrize("weighted", [False, True])
def test_it_is_the_likeliest_fit_at_a_difference_of_zero(weighted: bool) -> None:
    data = simulated(300, 0, theta=-0.7, phi=1.3, longer=0.5, weighted=weighted)
    theta, phi = slow_fit(*data)
    found = controlled(*data)
    assert found.win_rate == pytest.approx(expit(theta), abs=1e-6)
    assert found.length_coef == pytest.approx(phi, abs=1e-5)
    assert found.n == 300


def test_a_known_liking_for_length_is_taken_out() -> None:
    won, ours, baseline = simulated(6000, 1, theta=-0.5, phi=1.5, longer=1.5)
    found = controlled(won, ours, baseline)
    assert won.mean() > 0.55  # longer answers look better
    assert found.win_rate == pytest.approx(expit(-0.5), abs=0.03)
    assert found.length_coef == pytest.approx(1.5, abs=0.2)


def test_without_a_liking_for_length_it_is_the_win_rate() -> None:
    won, ours, baseline = simulated(6000, 2, theta=0.6, phi=0.0, longer=0.3)
    assert controlled(won, ours, baseline).win_rate == pytest.approx(won.mean(), abs=0.01)


def test_with_equal_lengths_it_is_the_win_rate_exactly() -> None:
    won = np.array([1, 0, 0.5, 1])
    found = controlled(won, np.full(4, 7), np.full(4, 7))
    assert (found.win_rate, found.length_coef) == (pytest.approx(won.mean()), None)


def test_swapping_the_models_mirrors_it_and_its_interval() -> None:
    won, ours, baseline = simulated(400, 3, theta=-0.3, phi=0.9, longer=0.8)
    forth, back = controlled(won, ours, baseline), controlled(1 - won, baseline, ours)
    assert forth.win_rate == pytest.approx(1 - back.win_rate)
    assert (forth.low, forth.high) == (pytest.approx(1 - back.high), pytest.approx(1 - back.low))
    assert forth.length_coef == pytest.approx(back.length_coef)


def test_the_interval_covers_the_truth_about_95_times_in_100() -> None:
    runs = [controlled(*simulated(250, seed, theta=-0.4, phi=1.0, longer=0.5)) for seed in range(120)]
    assert 0.9 <= np.mean([run.low <= expit(-0.4) <= run.high for run in runs if run.low and run.high]) <= 0.99


def test_several_verdicts_on_a_prompt_do_not_narrow_the_interval() -> None:
    data = simulated(200, 4, theta=0.2, phi=0.8)
    once = controlled(*data)
    fourfold = length_controlled(*(np.repeat(values, 4) for values in data), prompts=np.repeat(range(200), 4))
    assert fourfold.win_rate == pytest.approx(once.win_rate, abs=0.002)  # the std of n - 1 moves a little
    assert (fourfold.low, fourfold.high) == (pytest.approx(once.low, abs=0.005), pytest.approx(once.high, abs=0.005))


@pytest.mark.parametrize(
    ("won", "ours", "remark", "win_rate"),
    [
        ([1, 1, 0, 0], [12, 11, 9, 8], "length alone decides every verdict", None),
        ([0, 0, 1, 1], [12, 11, 9, 8], "length alone decides every verdict", None),
        ([1, 1, 0, 0], [12, 10, 10, 8], "length alone decides every verdict", None),
        ([1, 1, 1], [12, 8, 11], "all verdicts are wins, whatever the length", 1),
        ([0, 0], [12, 8], "all verdicts are losses, whatever the length", 0),
        ([1, 0, 1], [12, 12, 12], "all differences in length are alike", None),
        ([0.5], [12], "all differences in length are alike", None),
    ],
)
def test_where_no_finite_fit_is_best_a_remark_says_why(
    won: list[float], ours: list[int], remark: str, win_rate: float | None
) -> None:
    found = controlled(np.array(won), np.array(ours), np.full(len(won), 10))
    assert (found.remark, found.win_rate, found.low, found.high) == (remark, win_rate, None, None)


def test_a_single_verdict_on_either_side_of_a_threshold_is_enough_for_a_fit() -> None:
    found = controlled(np.array([1, 1, 0, 1, 0, 0]), np.array([12, 11, 10.5, 9.5, 9, 8]), np.full(6, 10))
    assert found.win_rate == pytest.approx(0.5, abs=0.05)

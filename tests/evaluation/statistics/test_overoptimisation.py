from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import curve_fit, minimize_scalar

from rlhf.evaluation.statistics.overoptimisation import Fit, Form, fit, peak

KL = np.array([0.1, 0.5, 1.0, 3.0, 8.0, 20.0])


def gain(d: float, alpha: float, beta: float, form: Form) -> float:
    """Gao et al.'s equations, as they stand."""
    return d * (alpha - beta * d) if form == Form.best_of_n else d * (alpha - beta * math.log(d))


def fitted(form: Form, alpha: float, beta: float, noise: float = 0.0) -> Fit:
    exact = np.array([gain(math.sqrt(kl), alpha, beta, form) for kl in KL])
    rng = np.random.default_rng(0)
    found = fit(KL, exact + noise * rng.normal(size=len(KL)), exact + noise * rng.normal(size=(400, len(KL))), form)
    assert found is not None
    return found


@pytest.mark.parametrize("form", list(Form))
def test_fit_finds_the_curve_that_made_the_points(form: Form) -> None:
    found = fitted(form, 0.5, 0.2)
    assert (found.alpha, found.beta) == (pytest.approx(0.5), pytest.approx(0.2))
    assert found.r_squared == pytest.approx(1)
    np.testing.assert_allclose(found(KL), [gain(math.sqrt(kl), 0.5, 0.2, form) for kl in KL])
    assert found([0.0])[0] == 0


@pytest.mark.parametrize("form", list(Form))
def test_peak_is_where_the_curve_is_highest(form: Form) -> None:
    found = fitted(form, 0.5, 0.2)
    best = minimize_scalar(lambda d: -gain(d, 0.5, 0.2, form), bounds=(1e-6, 20), method="bounded")
    assert found.peak_kl == pytest.approx(best.x**2, rel=1e-3)
    assert found.peak_gain == pytest.approx(-best.fun, rel=1e-6)


def test_fit_is_scipys_least_squares_and_its_interval_holds_the_truth() -> None:
    noisy = fitted(Form.rl, 0.4, 0.15, noise=0.01)
    rng = np.random.default_rng(0)
    points = [gain(math.sqrt(kl), 0.4, 0.15, Form.rl) for kl in KL] + 0.01 * rng.normal(size=len(KL))
    (alpha, beta), _ = curve_fit(lambda d, a, b: d * (a - b * np.log(d)), np.sqrt(KL), points)
    assert (noisy.alpha, noisy.beta) == (pytest.approx(alpha), pytest.approx(beta))
    assert noisy.alpha_ci[0] < 0.4 < noisy.alpha_ci[1]
    assert noisy.peak_kl is not None
    assert noisy.peak_kl_ci is not None
    assert noisy.peak_kl_ci[0] < math.exp(2 * (0.4 / 0.15 - 1)) < noisy.peak_kl_ci[1]


def test_what_does_not_bend_down_within_reach_has_no_peak() -> None:
    assert fitted(Form.best_of_n, 0.5, -0.1).peak_kl is None
    assert fitted(Form.best_of_n, 0.5, 0.001).peak_kl is None  # at d = 250
    assert peak(0.5, 0.2, Form.best_of_n, furthest=0.5) is None
    flat = fitted(Form.rl, 0.3, 0.0, noise=0.05)
    assert flat.peak_kl_ci is None


def test_two_points_are_no_curve() -> None:
    assert fit([0.0, 1.0, 2.0], [0.0, 0.1, 0.2], [[0.0, 0.1, 0.2]], Form.rl) is None
    assert fit([1.0, 1.0, 2.0], [0.1, 0.1, 0.2], [[0.1, 0.1, 0.2]], Form.rl) is None

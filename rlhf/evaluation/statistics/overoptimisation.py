"""How a judge's score moves with KL as a reward model is optimised against (Gao et al. 2022, arXiv:2210.10760).

With d = sqrt(KL) and R the gain over the model optimisation starts from, their equations 1 and 2 are

    best-of-n   R(d) = d (alpha - beta d)
    RL          R(d) = d (alpha - beta log d)

Both are linear in alpha and beta, so the fit is least squares without a start value. alpha says how much the reward
model teaches at first, beta how fast what it misses is exploited.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95
_REACH = 2.0  # a peak beyond so many times the largest measured d is no finding


class Form(Enum):
    best_of_n = "best_of_n"
    rl = "rl"


@dataclass(frozen=True)
class Fit:
    """A fitted curve. Intervals are over bootstrap draws of the gains; None where too few draws have a peak."""

    form: Form
    alpha: float
    beta: float
    alpha_ci: tuple[float, float]
    beta_ci: tuple[float, float]
    peak_kl: float | None  # nats; None: it does not bend down within reach of what was measured
    peak_kl_ci: tuple[float, float] | None
    peak_gain: float | None
    r_squared: float  # 1 - residual / total sum of squares, of the gains about their mean; NaN where all are equal

    def __call__(self, kl: ArrayLike) -> NDArray[np.float64]:
        """The gain at `kl`, nats."""
        return design(np.sqrt(np.asarray(kl, dtype=np.float64)), self.form) @ np.array([self.alpha, self.beta])


def design(d: ArrayLike, form: Form) -> NDArray[np.float64]:
    """(points, 2): what alpha and beta are multiplied by. d log d is 0 at 0, its limit."""
    root = np.asarray(d, dtype=np.float64)
    bend = root**2 if form == Form.best_of_n else root * np.log(np.where(root > 0, root, 1.0))
    return np.stack([root, -bend], axis=-1)


def fit(kl: ArrayLike, gains: ArrayLike, draws: ArrayLike, form: Form) -> Fit | None:
    """The curve through the points; None with fewer than three points away from KL 0.

    kl:    (points,) nats a response.
    gains: (points,) mean score less that of the model at KL 0, in units of score.
    draws: (samples, points) the same of bootstrap samples, for the intervals.
    """
    root = np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))
    measured = np.asarray(gains, dtype=np.float64)
    if len(np.unique(np.round(root[root > 0], 6))) < 3:
        return None
    matrix = design(root, form)
    solve = np.linalg.pinv(matrix)
    alpha, beta = (float(value) for value in solve @ measured)
    drawn = np.asarray(draws, dtype=np.float64) @ solve.T
    residual = float(((measured - matrix @ (alpha, beta)) ** 2).sum())
    spread = float(((measured - measured.mean()) ** 2).sum())
    furthest = float(root.max())
    top = peak(alpha, beta, form, furthest)
    tops = [found for a, b in drawn if (found := peak(a, b, form, furthest)) is not None]
    sure = top is not None and len(tops) >= CONFIDENCE * len(drawn)
    return Fit(
        form=form,
        alpha=alpha,
        beta=beta,
        alpha_ci=_interval(drawn[:, 0]),
        beta_ci=_interval(drawn[:, 1]),
        peak_kl=None if top is None else top**2,
        peak_kl_ci=_interval([value**2 for value in tops]) if sure else None,
        peak_gain=None if top is None else float(design([top], form)[0] @ (alpha, beta)),
        r_squared=1 - residual / spread if spread > 0 else math.nan,
    )


def peak(alpha: float, beta: float, form: Form, furthest: float) -> float | None:
    """d at which the curve is highest, where its derivative is 0; None where it does not bend down within reach.

    furthest: the largest measured d; a peak beyond twice that is an extrapolation and not reported.
    """
    if beta <= 0:
        return None
    top = alpha / (2 * beta) if form == Form.best_of_n else math.exp(min(alpha / beta - 1, 50.0))
    return top if 0 < top <= _REACH * furthest else None


def _interval(values: ArrayLike | Sequence[float]) -> tuple[float, float]:
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(np.asarray(values, dtype=np.float64), [tail, 1 - tail])
    return float(low), float(high)

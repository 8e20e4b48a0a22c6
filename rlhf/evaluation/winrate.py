"""Win rates and means over prompts, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int  # prompts

    @property
    def ci(self) -> list[float]:
        return [self.low, self.high]


def verdicts(scores: ArrayLike, baseline_scores: ArrayLike, *, tie_margin: float) -> NDArray[np.float64]:
    """1 for a win over the baseline, 0 for a loss, 0.5 for a tie, a prompt each.

    scores, baseline_scores: (prompts,), higher is better. Scores no further apart than `tie_margin` are a tie.
    Raises ValueError if the shapes differ.
    """
    ours, theirs = np.asarray(scores, dtype=np.float64), np.asarray(baseline_scores, dtype=np.float64)
    if ours.shape != theirs.shape:
        raise ValueError(f"{ours.shape} scores against {theirs.shape}; both candidates answer the same prompts.")
    difference = ours - theirs
    return np.where(np.abs(difference) <= tie_margin, 0.5, (difference > 0).astype(np.float64))


class Bootstrap:
    """Percentile bootstrap of means over prompts (Efron 1979): prompts are drawn with replacement, `samples` times.

    Every estimate of one Bootstrap uses the same draws, so candidates that answered the same prompts are compared on
    the same resampled prompts. The interval says how much the mean would move with other prompts of this kind; not
    how much with another training seed. With one prompt, or values all alike, it has width 0.
    """

    def __init__(self, prompts: int, *, samples: int, seed: int) -> None:
        self.prompts = prompts
        generator = np.random.default_rng(seed)
        # How often each draw holds each prompt, (samples, prompts): what a mean over the drawn prompts needs.
        self._counts = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=samples)

    def estimate(self, values: ArrayLike) -> Estimate:
        """The mean of `values`, (prompts,), and its interval."""
        array = np.asarray(values, dtype=np.float64)
        assert array.shape == (self.prompts,), f"{array.shape} values for {self.prompts} prompts"
        return self._interval(self._counts @ array / self.prompts, float(array.mean()), self.prompts)

    def ratio(self, numerators: ArrayLike, denominators: ArrayLike) -> Estimate | None:
        """Sum of `numerators` over sum of `denominators`, (prompts,) each, and its interval; None for 0 over 0.

        A mean over some of the prompts has their values above, 0 for the others, and 1 and 0 below. Draws without any
        of them are left out of the interval; n counts the prompts whose denominator is not 0.
        """
        above, below = np.asarray(numerators, dtype=np.float64), np.asarray(denominators, dtype=np.float64)
        if not below.any():
            return None
        drawn_above, drawn_below = self._counts @ above, self._counts @ below
        held = drawn_below > 0
        mean = float(above.sum() / below.sum())
        ratios = drawn_above[held] / drawn_below[held] if held.any() else np.array([mean])
        return self._interval(ratios, mean, int(np.count_nonzero(below)))

    def _interval(self, means: NDArray[np.float64], mean: float, n: int) -> Estimate:
        tail = (1 - CONFIDENCE) / 2
        low, high = np.quantile(means, [tail, 1 - tail])
        # Rounding may put a bound of equal values a last bit beyond their mean.
        return Estimate(mean, min(float(low), mean), max(float(high), mean), n)


def by_task(tasks: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Places of each task's prompts, tasks in alphabetical order; {} where the data names none."""
    return {task: np.flatnonzero(np.asarray(tasks) == task) for task in sorted(set(tasks)) if task}

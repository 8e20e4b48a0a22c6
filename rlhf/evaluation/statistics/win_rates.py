"""Win rates and means over prompts, with bootstrap intervals."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean over prompts, or another number made of them, and its 95 % interval."""

    mean: float
    low: float
    high: float
    n: int  # what it is a mean over: prompts, unless the function that makes it says otherwise

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
    how much with another training seed. With one prompt, or values all alike, it has width 0; `of_shares` mends that.
    """

    def __init__(self, prompts: int, *, samples: int, seed: int) -> None:
        self.prompts = prompts
        generator = np.random.default_rng(seed)
        # How often each draw holds each prompt, (samples, prompts): what a mean over the drawn prompts needs.
        self._counts = generator.multinomial(prompts, np.full(prompts, 1 / prompts), size=samples)

    def sums(self, values: ArrayLike) -> NDArray[np.float64]:
        """Each draw's sum over its prompts: (samples,) of values (prompts,), (samples, k) of values (prompts, k)."""
        array = np.asarray(values, dtype=np.float64)
        assert len(array) == self.prompts, f"{array.shape} values for {self.prompts} prompts"
        return self._counts @ array

    def draws(self) -> Iterator[NDArray[np.int64]]:
        """How often each draw holds each prompt, (prompts,): for a statistic that is no function of sums."""
        yield from self._counts

    def estimate(self, values: ArrayLike) -> Estimate:
        """The mean of `values`, (prompts,), and its interval."""
        array = np.asarray(values, dtype=np.float64)
        return interval(float(array.mean()), self.sums(array) / self.prompts, self.prompts)

    def ratio(self, totals: ArrayLike, counts: ArrayLike) -> Estimate:
        """sum(totals) / sum(counts), both (prompts,), and its interval: a mean where prompts have several values.

        All values of a prompt are drawn together. `n` is sum(counts). Draws without any value say nothing and are left
        out. Raises ValueError if there is no value at all.
        """
        total, count = float(np.sum(totals)), float(np.sum(counts))
        if not count:
            raise ValueError("A mean of no values; give counts that are not all 0.")
        drawn, of = self.sums(totals), self.sums(counts)
        held = drawn[of > 0] / of[of > 0]  # none, where a few draws all miss a few prompts
        return interval(total / count, held if len(held) else [total / count], round(count))

    def difference(self, ours: ArrayLike, theirs: ArrayLike) -> Estimate:
        """The mean of ours - theirs over the same prompts, (prompts,) each, in the same order.

        Paired: what makes a prompt hard for both cancels, so it is narrower than two intervals side by side.
        """
        return self.estimate(np.asarray(ours, dtype=np.float64) - np.asarray(theirs, dtype=np.float64))


def interval(value: float, drawn: ArrayLike, n: int) -> Estimate:
    """`value` with the percentiles of what the draws gave; draws that gave NaN say nothing and are left out."""
    array = np.asarray(drawn, dtype=np.float64)
    tail = (1 - CONFIDENCE) / 2
    low, high = np.quantile(array[~np.isnan(array)], [tail, 1 - tail])
    # Rounding may put a bound of equal values a last bit beyond their mean.
    return Estimate(value, min(float(low), value), max(float(high), value), n)


def of_shares(estimate: Estimate, values: ArrayLike) -> Estimate:
    """The estimate of a mean of shares, 0 to 1 each: where all are 0 or all 1, with Wilson's interval (1927).

    Twenty wins of twenty are no certainty, and a bootstrap has nothing else to draw: it would say 100 % [100, 100].
    """
    array = np.asarray(values, dtype=np.float64)
    if not len(array) or array[0] not in (0.0, 1.0) or (array != array[0]).any():
        return estimate
    n, z = len(array), NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    centre = (array[0] + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z**2 / (2 * n) / (1 + z**2 / n)  # of a share that is 0 or 1
    low, high = max(centre - half, 0.0), min(centre + half, 1.0)
    return Estimate(estimate.mean, min(low, estimate.mean), max(high, estimate.mean), estimate.n)


def by_task(tasks: Sequence[str]) -> dict[str, NDArray[Any]]:
    """Places of each task's prompts, tasks in alphabetical order; {} where the data names none."""
    return {task: np.flatnonzero(np.asarray(tasks) == task) for task in sorted(set(tasks)) if task}

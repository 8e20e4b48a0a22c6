"""Means over training seeds: what an interval over prompts does not cover."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rlhf.evaluation.statistics.win_rates import CONFIDENCE


@dataclass(frozen=True)
class SeedEstimate:
    """A mean over training seeds and its 95 % interval, as far as the number of seeds gives one."""

    mean: float
    low: float | None  # None with one seed, which tells nothing of the others
    high: float | None
    deviation: float | None  # sample standard deviation between seeds
    n: int  # seeds

    @property
    def ci(self) -> list[float] | None:
        return None if self.low is None or self.high is None else [self.low, self.high]


def over_seeds(values: Sequence[float]) -> SeedEstimate:
    """The mean of a value a seed, with Student's t interval (1908): seeds are few, and their spread is estimated.

    Raises ValueError for no seed.
    """
    from scipy.stats import t

    n = len(values)
    if n == 0:
        raise ValueError("A mean over no seeds.")
    mean = float(np.mean(values))
    if n == 1:
        return SeedEstimate(mean, None, None, None, 1)
    deviation = float(np.std(values, ddof=1))
    half_width = float(t.ppf((1 + CONFIDENCE) / 2, n - 1)) * deviation / math.sqrt(n)
    return SeedEstimate(mean, mean - half_width, mean + half_width, deviation, n)

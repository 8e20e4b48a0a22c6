"""Measured points: a setting's numbers over prompts and seeds, with intervals that cover both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import t as student_t

from rlhf.evaluation.winrate import CONFIDENCE, Bootstrap

PerPrompt = NDArray[np.float64]  # (prompts,)


@dataclass(frozen=True)
class Point:
    """One setting, or a model that none was trained for: what its seeds' answers to the shared prompts are worth."""

    label: str
    method: str  # base, base-few-shot, sft, ppo, ppo-ptx, best-of-n
    base: str  # of which size
    parameters: int | None
    per_prompt: Mapping[str, tuple[PerPrompt, ...]]  # by quantity, an array a seed
    per_seed: Mapping[str, tuple[float, ...]]  # quantities that are no mean over these prompts, a number a seed
    kl_coef: float | None = None
    ptx_coef: float | None = None
    jobs: tuple[str, ...] = ()

    @property
    def seeds(self) -> int:
        return max((len(arrays) for arrays in self.per_prompt.values()), default=0)

    def mean(self, quantity: str) -> PerPrompt | None:
        """Mean over seeds, a number a prompt; None where it was not measured."""
        arrays = self.per_prompt.get(quantity)
        return np.mean(arrays, axis=0) if arrays else None


@dataclass(frozen=True)
class Value:
    """A mean and its 95 % interval."""

    mean: float
    low: float
    high: float
    seeds: int
    sd_seeds: float | None = None  # standard deviation of the seeds' means; None for one seed

    @property
    def ci(self) -> list[float]:
        return [self.low, self.high]

    def json(self) -> dict[str, object]:
        return {"mean": self.mean, "ci": self.ci, "seeds": self.seeds, "sd_seeds": self.sd_seeds}


def value(arrays: Sequence[PerPrompt], bootstrap: Bootstrap) -> Value:
    """Mean over seeds and prompts, with an interval for the choice of both.

    The prompts' part is a bootstrap of the mean over seeds; the seeds' part, where there are two or more, Student's t of
    their means; the two are independent, so their half-widths add in quadrature. With one seed the interval says nothing
    of how much another would differ.
    """
    estimate = bootstrap.estimate(np.mean(arrays, axis=0))
    return _widened(estimate.mean, estimate.low, estimate.high, [float(np.mean(array)) for array in arrays])


def value_of_seeds(numbers: Sequence[float]) -> Value:
    """The same for numbers that have no prompts, such as a loss on documents: the interval is the seeds' alone."""
    mean = float(np.mean(numbers))
    return _widened(mean, mean, mean, numbers)


def _widened(mean: float, low: float, high: float, seed_means: Sequence[float]) -> Value:
    count = len(seed_means)
    if count < 2:
        return Value(mean, low, high, count)
    deviation = float(np.std(seed_means, ddof=1))
    half = float(student_t.ppf((1 + CONFIDENCE) / 2, count - 1)) * deviation / math.sqrt(count)
    return Value(mean, mean - math.hypot(mean - low, half), mean + math.hypot(high - mean, half), count, deviation)


def difference(
    one: Sequence[PerPrompt], other: Sequence[PerPrompt], bootstrap: Bootstrap, *, paired: bool = False
) -> Value:
    """Mean of `one` minus mean of `other` on the same prompts.

    paired: the two have the same seeds in the same order, and each is compared with its namesake; else the seeds' parts
    of both add in quadrature.
    """
    if paired and len(one) == len(other):
        return value([a - b for a, b in zip(one, other, strict=True)], bootstrap)
    estimate = bootstrap.estimate(np.mean(one, axis=0) - np.mean(other, axis=0))
    low, high = estimate.low, estimate.high
    for arrays in (one, other):
        own = [float(np.mean(array)) for array in arrays]
        widened = _widened(estimate.mean, low, high, own)
        low, high = widened.low, widened.high
    return Value(estimate.mean, low, high, min(len(one), len(other)))

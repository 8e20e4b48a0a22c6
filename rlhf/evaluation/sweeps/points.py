"""Measured points: a setting's numbers over prompts and seeds, with intervals that cover both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.statistics.seeds import over_seeds
from rlhf.evaluation.statistics.win_rates import Bootstrap, of_shares

PerPrompt = NDArray[np.float64]  # (prompts,)


@dataclass(frozen=True)
class Point:
    """One setting, or a model that none was trained for: what its seeds' answers to the shared prompts are worth."""

    label: str
    method: str  # base, base-few-shot, sft, ppo, ppo-ptx, best-of-n
    base: str  # of which size
    parameters: int | None
    per_prompt: Mapping[str, tuple[PerPrompt, ...]]  # by quantity, an array a seed
    text_loss: tuple[float, ...] = ()  # on held-out documents, nats a token, a number a seed; () without documents
    benchmark: tuple[PerPrompt, ...] = ()  # 1 for a right item, else 0: (items,) a seed; () without held-out tasks
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


def size_title(parameters: float) -> str:
    """As 1.3B or 936k."""
    for size, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= size:
            return f"{parameters / size:.3g}{unit}"
    return f"{parameters:g}"


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


def share(arrays: Sequence[PerPrompt], bootstrap: Bootstrap) -> Value:
    """`value` of win rates and accuracies, 0 to 1, which no interval leaves."""
    means = np.mean(arrays, axis=0)
    estimate = of_shares(bootstrap.estimate(means), means)
    return _within(_widened(estimate.mean, estimate.low, estimate.high, [float(np.mean(array)) for array in arrays]))


def _within(found: Value) -> Value:
    return replace(found, low=max(found.low, 0.0), high=min(found.high, 1.0))


def value(arrays: Sequence[PerPrompt], bootstrap: Bootstrap) -> Value:
    """Mean over seeds and prompts, with an interval for the choice of both.

    The prompts' part is a bootstrap of the mean over seeds; the seeds' part, where there are two or more, Student's t
    of their means; the two are independent, so their half-widths add in quadrature. With one seed the interval says
    nothing of how much another would differ.
    """
    estimate = bootstrap.estimate(np.mean(arrays, axis=0))
    return _widened(estimate.mean, estimate.low, estimate.high, [float(np.mean(array)) for array in arrays])


def value_of_seeds(numbers: Sequence[float]) -> Value:
    """The same for numbers that have no prompts, such as a loss on documents: the interval is the seeds' alone.

    With one seed it has no width, and says nothing.
    """
    mean = float(np.mean(numbers))
    return _widened(mean, mean, mean, numbers)


def _widened(mean: float, low: float, high: float, seed_means: Sequence[float]) -> Value:
    seeds = over_seeds(seed_means)
    half = 0.0 if seeds.high is None else seeds.high - seeds.mean
    return Value(
        mean, mean - math.hypot(mean - low, half), mean + math.hypot(high - mean, half), seeds.n, seeds.deviation
    )


def difference(one: Sequence[PerPrompt], other: Sequence[PerPrompt], bootstrap: Bootstrap) -> Value:
    """Mean of `one` minus mean of `other` on the same prompts; the seeds' parts of both add in quadrature."""
    estimate = bootstrap.difference(np.mean(one, axis=0), np.mean(other, axis=0))
    low, high = estimate.low, estimate.high
    for arrays in (one, other):
        widened = _widened(estimate.mean, low, high, [float(np.mean(array)) for array in arrays])
        low, high = widened.low, widened.high
    return Value(estimate.mean, low, high, min(len(one), len(other)))

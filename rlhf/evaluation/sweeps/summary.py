"""From measured points to the numbers of a report: curves over KL, fits, equal KL, who wins by size.

`summarise` returns what report.json holds; its keys are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.evaluation.statistics import matched_kl, overoptimisation
from rlhf.evaluation.statistics.overoptimisation import Form
from rlhf.evaluation.statistics.win_rates import Bootstrap
from rlhf.evaluation.sweeps.points import (
    PerPrompt,
    Point,
    Value,
    difference,
    share,
    value,
    value_of_seeds,
)

METHODS = ("base", "base-few-shot", "sft", "ppo", "ppo-ptx")  # of models, as figure 1 orders them
QUANTITIES = ("judge", "proxy", "kl", "tokens", "wins_sft", "wins_largest")  # a number a prompt
SHARES = ("wins_sft", "wins_largest")  # from 0 to 1


@dataclass(frozen=True)
class BestOfN:
    """Best-of-n from one SFT model: for each n the KL and, a number a prompt, what is picked is worth."""

    base: str
    n: tuple[int, ...]
    kl: tuple[float, ...]
    judge: tuple[PerPrompt, ...]
    proxy: tuple[PerPrompt, ...]
    wins_sft: tuple[PerPrompt, ...]
    bootstrap: Bootstrap  # over its own prompts, which may be fewer


@dataclass(frozen=True)
class Measured:
    """Everything that was measured, before any of it is averaged."""

    points: tuple[Point, ...]
    kl_curves: tuple[tuple[str, ...], ...]  # labels along ppo.kl.coef, smallest first
    ptx_curves: tuple[tuple[str, ...], ...]  # labels along ppo.ptx.coef
    best_of_n: tuple[BestOfN, ...]
    bootstrap: Bootstrap
    judge: str  # whose score is on the axes
    units: Mapping[str, str]  # of judge and proxy
    largest: str  # base whose SFT model the others are measured against
    independent: bool = True  # whether no policy was trained on the judge's own scores
    items: Bootstrap | None = None  # over the benchmark's items; None without one
    prompts_of_best_of_n: Sequence[int] = ()  # places of its prompts among all

    def point(self, label: str) -> Point:
        return next(point for point in self.points if point.label == label)

    def find(self, method: str, base: str) -> list[Point]:
        return [point for point in self.points if point.method == method and point.base == base]

    def sft(self, base: str) -> Point:
        return self.find("sft", base)[0]

    @property
    def bases(self) -> list[str]:
        """Smallest first."""
        return list(dict.fromkeys(point.base for point in self.points))


def point_json(point: Point, measured: Measured) -> dict[str, Any]:
    found: dict[str, Any] = {
        "label": point.label,
        "method": point.method,
        "base": point.base,
        "parameters": point.parameters,
        "kl_coef": point.kl_coef,
        "ptx_coef": point.ptx_coef,
        "seeds": point.seeds,
        "jobs": list(point.jobs),
    }
    for quantity in QUANTITIES:
        arrays = point.per_prompt.get(quantity)
        average = share if quantity in SHARES else value
        found[quantity] = average(arrays, measured.bootstrap).json() if arrays else None
    taught = accuracy(measured, point)
    found["text_loss"] = value_of_seeds(point.text_loss).json() if point.text_loss else None
    found["benchmark"] = taught.json() if taught is not None else None
    return found


def accuracy(measured: Measured, point: Point) -> Value | None:
    """On the held-out tasks, over items and seeds; None where it was not measured."""
    return share(point.benchmark, measured.items) if point.benchmark and measured.items is not None else None


def best_of_n_json(best: BestOfN) -> list[dict[str, Any]]:
    return [
        {
            "n": n,
            "kl": kl,
            "judge": value([judge], best.bootstrap).json(),
            "proxy": value([proxy], best.bootstrap).json(),
            "wins_sft": share([wins], best.bootstrap).json(),
        }
        for n, kl, judge, proxy, wins in zip(best.n, best.kl, best.judge, best.proxy, best.wins_sft, strict=True)
    ]


def mean_kl(point: Point) -> float:
    """Nats a response; a sampled KL near 0 may come out below it, which KL is not."""
    array = point.mean("kl")
    assert array is not None, f"{point.label} has no KL"
    return max(float(array.mean()), 0.0)


def rl_fit(measured: Measured, curve: Sequence[str], quantity: str) -> overoptimisation.Fit | None:
    """Gao et al.'s RL curve of `quantity` through the settings of a KL sweep, as gain over their SFT model."""
    points = [measured.point(label) for label in curve]
    start = measured.sft(points[0].base).mean(quantity)
    arrays = [point.mean(quantity) for point in points]
    if start is None or any(array is None for array in arrays):
        return None
    gains = np.stack([array - start for array in arrays if array is not None])
    return _fit([mean_kl(point) for point in points], gains, measured.bootstrap, Form.rl)


def best_of_n_fit(best: BestOfN) -> overoptimisation.Fit | None:
    gains = np.stack([judge - best.judge[0] for judge in best.judge[1:]]) if len(best.judge) > 1 else np.empty((0, 0))
    return _fit(best.kl[1:], gains, best.bootstrap, Form.best_of_n)


def _fit(kl: Sequence[float], gains: np.ndarray, bootstrap: Bootstrap, form: Form) -> overoptimisation.Fit | None:
    if len(gains) == 0:
        return None
    return overoptimisation.fit(kl, gains.mean(axis=1), bootstrap.sums(gains.T) / bootstrap.prompts, form)


@dataclass(frozen=True)
class Curve:
    """A line over KL: a sweep's settings behind their SFT model, or best-of-n."""

    name: str
    base: str
    method: str
    kl: tuple[float, ...]
    judge: tuple[tuple[PerPrompt, ...], ...]  # by point, an array a seed


def curves(measured: Measured, base: str) -> list[Curve]:
    """The lines of one size on the prompts that best-of-n was drawn for, so that all can be compared."""
    rows = list(measured.prompts_of_best_of_n)
    some = [best for best in measured.best_of_n if best.base == base]

    def arrays(point: Point) -> tuple[PerPrompt, ...]:
        return tuple(array[rows] if some else array for array in point.per_prompt["judge"])

    found = []
    for labels in measured.kl_curves:
        points = [measured.point(label) for label in labels]
        if points[0].base != base:
            continue
        # All of a sweep's lines begin at the SFT model.
        sft = measured.sft(base)
        sft_arrays = arrays(sft) * points[0].seeds if sft.seeds == 1 else arrays(sft)
        found.append(
            Curve(
                name=_curve_name(measured, labels),
                base=base,
                method=points[0].method,
                kl=(0.0, *map(mean_kl, points)),
                judge=(sft_arrays, *map(arrays, points)),
            )
        )
    found += [Curve("best-of-n", base, "best-of-n", best.kl, tuple((j,) for j in best.judge)) for best in some]
    return found


def _curve_name(measured: Measured, labels: Sequence[str]) -> str:
    """The method, with the first setting's other values where one size has several lines of it."""
    first = measured.point(labels[0])
    alike = [line for line in measured.kl_curves if _kind(measured.point(line[0])) == _kind(first)]
    return first.method if len(alike) == 1 else first.label


def _kind(point: Point) -> tuple[str, str]:
    return point.base, point.method


def at_equal_kl(measured: Measured, base: str, wanted: Sequence[float]) -> list[dict[str, Any]]:
    """Rows of the matched-KL table: at each KL every line's judge's score, and its difference to best-of-n's."""
    lines = curves(measured, base)
    if not lines:
        return []
    some = [best for best in measured.best_of_n if best.base == base]
    bootstrap = some[0].bootstrap if some else measured.bootstrap
    at = list(wanted) or matched_kl.targets([line.kl for line in lines]) or _own_targets(lines)
    rows = []
    for kl in at:
        row: dict[str, Any] = {"kl": kl, "curves": {}, "over_best_of_n": {}}
        values = {line.name: interpolated for line in lines if (interpolated := _interpolate(line, kl)) is not None}
        for name, arrays in values.items():
            row["curves"][name] = value(arrays, bootstrap).json()
            if name != "best-of-n" and "best-of-n" in values:
                row["over_best_of_n"][name] = difference(arrays, values["best-of-n"], bootstrap).json()
        if values:
            rows.append(row)
    return rows


def _own_targets(lines: Sequence[Curve]) -> list[float]:
    return matched_kl.targets([lines[0].kl, lines[0].kl])


def _interpolate(line: Curve, kl: float) -> list[PerPrompt] | None:
    weights = matched_kl.interpolation(line.kl, kl)
    if weights is None:
        return None
    seeds = min(len(arrays) for arrays, weight in zip(line.judge, weights, strict=True) if weight)
    return [
        np.sum([w * arrays[seed] for w, arrays in zip(weights, line.judge, strict=True) if w], axis=0)
        for seed in range(seeds)
    ]


def by_size(measured: Measured) -> dict[str, list[Point]]:
    """Figure 1: for each method its points over sizes, smallest first; PPO's with the setting that most sizes share."""
    found: dict[str, list[Point]] = {}
    for method in METHODS:
        points = [point for base in measured.bases for point in measured.find(method, base)]
        if method in ("ppo", "ppo-ptx"):
            settings: dict[tuple[float | None, float | None], list[Point]] = {}
            for point in points:
                settings.setdefault((point.kl_coef, point.ptx_coef), []).append(point)
            points = max(settings.values(), key=lambda group: len({p.base for p in group}), default=[])
        if points:
            found[method] = points
    return found


def fit_json(fit: overoptimisation.Fit) -> dict[str, Any]:
    return {
        "form": fit.form.value,
        "alpha": fit.alpha,
        "alpha_ci": fit.alpha_ci,
        "beta": fit.beta,
        "beta_ci": fit.beta_ci,
        "peak_kl": fit.peak_kl,
        "peak_kl_ci": fit.peak_kl_ci,
        "peak_gain": fit.peak_gain,
        "r_squared": fit.r_squared,
    }


def summarise(measured: Measured, *, wanted_kl: Sequence[float], unfinished: Sequence[str]) -> dict[str, Any]:
    """The report as JSON values, without its sentences."""
    fits = []
    for curve in measured.kl_curves:
        for quantity in ("judge", "proxy"):
            found = rl_fit(measured, curve, quantity)
            if found is not None:
                fits.append({"curve": list(curve), "quantity": quantity, **fit_json(found)})
    for best in measured.best_of_n:
        found = best_of_n_fit(best)
        if found is not None:
            fits.append({"curve": f"best-of-n {best.base}", "quantity": "judge", **fit_json(found)})
    return {
        "judge": measured.judge,
        "units": dict(measured.units),
        "prompts": measured.bootstrap.prompts,
        "largest": measured.largest,
        "independent": measured.independent,
        "points": [point_json(point, measured) for point in measured.points],
        "best_of_n": {best.base: best_of_n_json(best) for best in measured.best_of_n},
        "prompts_of_best_of_n": len(measured.prompts_of_best_of_n),
        "fits": fits,
        "matched_kl": {base: rows for base in measured.bases if (rows := at_equal_kl(measured, base, wanted_kl))},
        "unfinished": list(unfinished),
    }


def compare_points(measured: Measured, one: Point, other: Point, quantity: str = "judge") -> Value | None:
    """`one` less `other` on the same prompts; None where either was not measured."""
    ours, theirs = one.per_prompt.get(quantity), other.per_prompt.get(quantity)
    return difference(ours, theirs, measured.bootstrap) if ours and theirs else None

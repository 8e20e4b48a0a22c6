"""Points of a sweep as marks with bars and seeds, and what methods are called."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf.evaluation.pages.figures import Style, legend_columns, whiskers
from rlhf.evaluation.sweeps.points import Point, Value
from rlhf.evaluation.sweeps.summary import Measured

if TYPE_CHECKING:
    from matplotlib.axes import Axes


_NAMES = {"sft": "SFT", "ppo": "PPO", "ppo-ptx": "PPO-ptx"}


def method_title(method: str) -> str:
    return _NAMES.get(method, method.replace("-", " ") if method == "base-few-shot" else method)


def of_base(measured: Measured, base: str) -> str:
    return f"\n{base}" if len(measured.bases) > 1 else ""  # a line of its own: titles are as wide as figures


def mark(
    axes: Axes,
    look: Style,
    x: float,
    y: Value,
    *,
    scale: float = 1.0,
    x_interval: Value | None = None,
) -> None:
    axes.errorbar(
        [x],
        [scale * y.mean],
        yerr=whiskers([scale * y.mean], [[scale * bound for bound in y.ci]]),
        xerr=None if x_interval is None else whiskers([x], [[max(bound, 0.0) for bound in x_interval.ci]]),
        color=look.colour,
        marker=look.marker,
        linestyle="none",
        elinewidth=0.9,
        capsize=2,
        clip_on=False,
        zorder=3,
    )


def legend(axes: Axes, names: Sequence[str]) -> None:
    if len(names) > 1:
        axes.figure.legend(loc="outside lower center", ncols=legend_columns(names))


def over_coefficients(
    axes: Axes,
    lines: Sequence[Sequence[Point]],
    coefficient: str,
    measure: Callable[[Point], Value | None],
    looks: Mapping[str, Style],
    scale: float = 1.0,
) -> None:
    """A mark a point over evenly spaced coefficients, which have a 0 and no common scale, and its seeds beside it."""
    ticks = sorted({getattr(point, coefficient) or 0.0 for line in lines for point in line})
    for line in lines:
        look = looks[line[-1].method]
        found = [(ticks.index(getattr(point, coefficient) or 0.0), point, measure(point)) for point in line]
        kept = [(x, point, v) for x, point, v in found if v is not None]
        axes.plot([x for x, _, _ in kept], [scale * v.mean for _, _, v in kept], color=look.colour, linewidth=0.9)
        for x, point, v in kept:
            mark(axes, looks[point.method], x, v, scale=scale)
    axes.set_xticks(range(len(ticks)), [f"{tick:g}" for tick in ticks])
    axes.set_xlim(-0.3, len(ticks) - 0.7)

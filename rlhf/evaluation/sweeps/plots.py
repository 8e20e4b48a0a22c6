"""The sweep report's figures: the paper's figure 1, frontiers over KL with Gao et al.'s curves, ablations.

Colours and markers are those of `rlhf.evaluation.plots`, by method. Hollow marks are single seeds.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlhf.evaluation.pages.figures import Figure, Style, canvas, root_axis, styles, whiskers
from rlhf.evaluation.statistics.overoptimisation import Fit
from rlhf.evaluation.sweeps.ablations import ablation
from rlhf.evaluation.sweeps.marks import legend, mark, method_title, of_base, over_coefficients
from rlhf.evaluation.sweeps.points import Point, Value, share, size_title, value
from rlhf.evaluation.sweeps.summary import METHODS, BestOfN, Measured, best_of_n_fit, by_size, mean_kl, rl_fit

if TYPE_CHECKING:
    from matplotlib.axes import Axes


DRAWN = (*METHODS, "best-of-n")
WHO_WINS, OVER_KL = "Who wins", "Score against KL"


def figures(measured: Measured) -> list[Figure]:
    """Every figure that the points at hand allow, in the order of the report."""
    looks = styles(DRAWN)
    drawn = [*_figure_one(measured, looks), win_rates(measured, looks)]
    for base in measured.bases:
        lines = [[measured.point(label) for label in line] for line in measured.kl_curves]
        lines = [line for line in lines if line[0].base == base]
        best = next((best for best in measured.best_of_n if best.base == base), None)
        if lines:
            for root in (False, True):
                drawn.append(_frontier(measured, base, lines, best, looks, root=root))
            drawn += [
                _gold_and_proxy(measured, base, lines, looks),
                _judge_against_proxy(measured, base, lines, best, looks),
                _kl_against_coefficient(measured, base, lines, looks),
                _length_against_kl(measured, base, lines, looks),
            ]
        drawn += ablation(measured, base, measured.kl_curves, "ppo.kl.coef", "kl_coef", looks)
        drawn += ablation(measured, base, measured.ptx_curves, "ppo.ptx.coef", "ptx_coef", looks)
    return drawn


def _figure_one(measured: Measured, looks: Mapping[str, Style]) -> list[Figure]:
    """Win rate against the largest SFT model by size and method, as the paper's figure 1; [] with one size."""
    sizes = by_size(measured)
    if len(measured.bases) < 2 or any(point.parameters is None for points in sizes.values() for point in points):
        return []
    caption = (
        f"Share of prompts on which a model's answer beats that of the largest SFT model ({measured.largest}), ties as "
        f"half, by the {measured.judge} judge; bars are 95 % intervals over prompts and seeds. As figure 1 of "
        "arXiv:2203.02155."
    )
    with canvas("Win rate by size and method", caption, WHO_WINS, 3.6) as (axes, finish):
        axes.axhline(50, color="black", linewidth=1, linestyle="--")
        for method, points in sizes.items():
            look = looks[method]
            x = [float(point.parameters or 0) for point in points]
            values = [share(point.per_prompt["wins_largest"], measured.bootstrap) for point in points]
            axes.plot(x, [100 * v.mean for v in values], color=look.colour, linestyle=look.line, linewidth=1.2)
            for at, v in zip(x, values, strict=True):
                mark(axes, look, at, v, scale=100)
            axes.plot([], [], color=look.colour, linestyle=look.line, marker=look.marker, label=method_title(method))
        axes.set_xscale("log")
        ticks = sorted({float(p.parameters or 0) for points in sizes.values() for p in points})
        axes.set_xticks(ticks, [size_title(tick) for tick in ticks])
        axes.set_xticks([], minor=True)
        axes.set_xlabel("weights")
        axes.set_ylabel("win rate (% of prompts)")
        axes.set_ylim(0, 100)
        legend(axes, [method_title(method) for method in sizes])
        return [finish()]


def win_rates(measured: Measured, looks: Mapping[str, Style]) -> Figure:
    """Every point's win rate against the SFT model it started from, with its seeds."""
    points = [point for point in measured.points if point.method != "sft" and point.per_prompt.get("wins_sft")]
    caption = (
        f"Share of prompts on which the answer beats that of the SFT model it started from, ties as half, by the "
        f"{measured.judge} judge; bars are 95 % intervals over prompts and seeds, hollow marks single seeds."
    )
    with canvas("Win rate against one's own SFT model", caption, WHO_WINS, 1.1 + 0.24 * len(points)) as (axes, finish):
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        for row, point in enumerate(points):
            look, found = looks[point.method], share(point.per_prompt["wins_sft"], measured.bootstrap)
            axes.errorbar(
                [100 * found.mean],
                [row],
                xerr=whiskers([100 * found.mean], [[100 * bound for bound in found.ci]]),
                color=look.colour,
                marker=look.marker,
                capsize=2,
                elinewidth=0.9,
                zorder=3,
            )
            if point.seeds > 1:
                seeds = [100 * float(np.mean(array)) for array in point.per_prompt["wins_sft"]]
                axes.plot(seeds, [row] * len(seeds), look.marker, color=look.colour, markerfacecolor="none", alpha=0.6)
        axes.set_yticks(range(len(points)), [point.label for point in points], fontsize=7.5)
        axes.set_ylim(len(points) - 0.4, -0.6)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("win rate (% of prompts)")
        axes.grid(axis="y", visible=False)
        return finish()


def _kl_axis(axes: Axes, *, root: bool) -> None:
    if root:
        root_axis(axes)
    axes.set_xlim(left=0)
    axes.set_xlabel("KL from SFT (nats per response" + (", spaced by square root)" if root else ")"))


def _fitted(axes: Axes, fit: Fit | None, start: float, furthest: float, look: Style) -> None:
    """The fitted curve, thin and dotted, and its peak."""
    if fit is None:
        return
    kl = np.linspace(0, furthest**0.5, 200) ** 2
    axes.plot(kl, start + fit(kl), color=look.colour, linestyle=":", linewidth=1.2, zorder=2)
    if fit.peak_kl is not None and fit.peak_kl <= furthest:
        axes.axvline(fit.peak_kl, color=look.colour, linestyle=":", linewidth=0.8, alpha=0.7)


def _frontier(
    measured: Measured,
    base: str,
    lines: Sequence[Sequence[Point]],
    best: BestOfN | None,
    looks: Mapping[str, Style],
    *,
    root: bool,
) -> Figure:
    """The judge's score against measured KL: a sweep's settings, the SFT model at 0, and best-of-n."""
    sft = measured.sft(base)
    start = value(sft.per_prompt["judge"], measured.bootstrap)
    furthest = max(mean_kl(point) for line in lines for point in line)
    caption = (
        "Each mark is a setting on the same held-out prompts, labelled with its coefficient; bars are 95 % intervals "
        "over prompts and seeds."
        + (" Dotted: the curves of arXiv:2210.10760 fitted to them, with their peaks." if root else "")
        + (f" best-of-n: n = {best.n[0]} to {best.n[-1]}, at KL log n - (n - 1) / n." if best else "")
    )
    title = f"{measured.judge.capitalize()} score against " + ("square root of KL" if root else "KL")
    with canvas(title + of_base(measured, base), caption, OVER_KL) as (axes, finish):
        mark(axes, looks["sft"], 0.0, start)
        axes.plot([], [], looks["sft"].marker, color=looks["sft"].colour, label=method_title("sft"))
        shown = [method_title("sft")]
        for line in lines:
            look, points = looks[line[0].method], sorted(line, key=mean_kl)
            values = [value(point.per_prompt["judge"], measured.bootstrap) for point in points]
            kls = [mean_kl(point) for point in points]
            if root:
                fit = rl_fit(measured, [point.label for point in line], "judge")
                _fitted(axes, fit, start.mean, furthest, look)
            else:
                axes.plot([0, *kls], [start.mean, *(v.mean for v in values)], color=look.colour, linewidth=0.9)
            for point, kl, v in zip(points, kls, values, strict=True):
                mark(axes, look, kl, v, x_interval=value(point.per_prompt["kl"], measured.bootstrap))
                _annotate(axes, point.kl_coef, kl, v.mean)
            name = method_title(line[0].method)
            axes.plot([], [], color=look.colour, marker=look.marker, label=name)
            shown.append(name)
        if best is not None:
            look = looks["best-of-n"]
            values = [value([array], best.bootstrap) for array in best.judge]
            axes.fill_between(best.kl, [v.low for v in values], [v.high for v in values], color=look.colour, alpha=0.15)
            means = [v.mean for v in values]
            axes.plot(best.kl, means, color=look.colour, marker=look.marker, markersize=3.5, label="best-of-n")
            if root:
                _fitted(axes, best_of_n_fit(best), means[0], best.kl[-1], look)
            shown.append("best-of-n")
        _kl_axis(axes, root=root)
        axes.set_ylabel(measured.units["judge"])
        legend(axes, shown)
        return finish()


def _annotate(axes: Axes, coefficient: float | None, x: float, y: float) -> None:
    if coefficient is not None:
        axes.annotate(f"{coefficient:g}", (x, y), xytext=(4, 4), textcoords="offset points", fontsize=7.5)


def _gold_and_proxy(
    measured: Measured, base: str, lines: Sequence[Sequence[Point]], looks: Mapping[str, Style]
) -> Figure:
    """Gao et al.'s picture: what the policy is trained on goes on rising while what it stands for falls."""
    caption = (
        f"Filled, left axis: {measured.units['judge']}. Hollow, right axis: the policy's own reward model. "
        "Dotted: R(d) = d (alpha - beta log d), d = sqrt(KL), fitted to each. Bars are 95 % intervals."
    )
    with canvas(f"What was optimised, and what it stands for{of_base(measured, base)}", caption, OVER_KL) as (
        axes,
        finish,
    ):
        other = axes.twinx()
        other.spines["right"].set_visible(True)
        other.grid(visible=False)
        furthest = max(mean_kl(point) for line in lines for point in line)
        for line in lines:
            look = looks[line[0].method]
            for panel, quantity, face in ((axes, "judge", look.colour), (other, "proxy", "white")):
                if not all(point.per_prompt.get(quantity) for point in (*line, measured.sft(base))):
                    continue
                start = value(measured.sft(base).per_prompt[quantity], measured.bootstrap).mean
                _fitted(panel, rl_fit(measured, [point.label for point in line], quantity), start, furthest, look)
                for x, point in ((0.0, measured.sft(base)), *((mean_kl(point), point) for point in line)):
                    v = value(point.per_prompt[quantity], measured.bootstrap)
                    own = looks["sft"] if point.method == "sft" else look
                    panel.errorbar(
                        [x],
                        [v.mean],
                        yerr=whiskers([v.mean], [v.ci]),
                        color=own.colour,
                        marker=own.marker,
                        markerfacecolor=own.colour if face != "white" else "white",
                        elinewidth=0.9,
                        clip_on=False,
                        zorder=3,
                    )
        _kl_axis(axes, root=True)
        axes.set_ylabel(f"{measured.units['judge']}, filled")
        other.set_ylabel(f"{measured.units['proxy']}, hollow")
        return finish()


def _judge_against_proxy(
    measured: Measured,
    base: str,
    lines: Sequence[Sequence[Point]],
    best: BestOfN | None,
    looks: Mapping[str, Style],
) -> Figure:
    caption = (
        "From the SFT model outwards along each line. Where a line turns down, more of the reward model's score buys "
        "less of what it stands for. Labels are KL coefficients; bars are 95 % intervals."
    )
    title = f"{measured.judge.capitalize()} score against reward-model score"
    with canvas(title + of_base(measured, base), caption, OVER_KL) as (axes, finish):
        shown = []
        for line in lines:
            look = looks[line[0].method]
            points = [measured.sft(base), *sorted(line, key=mean_kl)]
            if not all(point.per_prompt.get("proxy") for point in points):
                continue
            x = [value(point.per_prompt["proxy"], measured.bootstrap).mean for point in points]
            values = [value(point.per_prompt["judge"], measured.bootstrap) for point in points]
            axes.plot(x, [v.mean for v in values], color=look.colour, linewidth=0.9)
            for point, at, v in zip(points, x, values, strict=True):
                mark(axes, looks[point.method], at, v)
                _annotate(axes, point.kl_coef, at, v.mean)
            axes.plot([], [], color=look.colour, marker=look.marker, label=method_title(line[0].method))
            shown.append(method_title(line[0].method))
        if best is not None:
            look = looks["best-of-n"]
            x = [float(np.mean(array)) for array in best.proxy]
            means = [float(np.mean(array)) for array in best.judge]
            axes.plot(x, means, color=look.colour, marker=look.marker, markersize=3.5, label="best-of-n")
            shown.append("best-of-n")
        axes.set_xlabel(measured.units["proxy"])
        axes.set_ylabel(measured.units["judge"])
        legend(axes, shown)
        return finish()


def _kl_against_coefficient(
    measured: Measured, base: str, lines: Sequence[Sequence[Point]], looks: Mapping[str, Style]
) -> Figure:
    caption = "How far each coefficient let the policy go, on held-out prompts; bars are 95 % intervals over both."

    def kl(point: Point) -> Value:
        return value(point.per_prompt["kl"], measured.bootstrap)

    drawn = [kl(point) for line in lines for point in line]
    above = [bound for found in drawn for bound in (found.low, found.mean) if bound > 0]
    foot = min(above) / 2 if above else 0.0  # a logarithm has no 0, and a bar that goes there would leave the page
    if above and any(found.low <= 0 for found in drawn):
        caption += " What is 0 or less ends at the foot."

    def on_the_axis(point: Point) -> Value:
        found = kl(point)
        return replace(found, mean=max(found.mean, foot), low=max(found.low, foot), high=max(found.high, foot))

    with canvas(f"KL against its coefficient{of_base(measured, base)}", caption, OVER_KL) as (axes, finish):
        over_coefficients(axes, lines, "kl_coef", on_the_axis if above else kl, looks)
        if above:
            axes.set_yscale("log")
            axes.set_ylim(bottom=foot)
            axes.yaxis.set_major_formatter("{x:g}")
            axes.yaxis.set_minor_formatter("")
        axes.set_xlabel("ppo.kl.coef (reward per nat)")
        axes.set_ylabel("KL from SFT (nats per response)")
        return finish()


def _length_against_kl(
    measured: Measured, base: str, lines: Sequence[Sequence[Point]], looks: Mapping[str, Style]
) -> Figure:
    caption = "Mean length of an answer; a reward model that likes length shows here. Bars are 95 % intervals."
    with canvas(f"Length against KL{of_base(measured, base)}", caption, OVER_KL) as (axes, finish):
        for line in lines:
            points = [measured.sft(base), *sorted(line, key=mean_kl)]
            values = [value(point.per_prompt["tokens"], measured.bootstrap) for point in points]
            kls = [0.0, *(mean_kl(point) for point in points[1:])]
            axes.plot(kls, [v.mean for v in values], color=looks[line[0].method].colour, linewidth=0.9)
            for point, kl, v in zip(points, kls, values, strict=True):
                mark(axes, looks[point.method], kl, v)
                _annotate(axes, point.kl_coef, kl, v.mean)
        _kl_axis(axes, root=True)
        axes.set_ylabel("tokens per response")
        return finish()

"""report.html of published verdicts: the answer in a sentence, tables, plots, what the words mean."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.evaluation.pages.figures import HEIGHT_IN, Figure, canvas, whiskers
from rlhf.evaluation.pages.html import gallery, page
from rlhf.evaluation.published.verdicts_text import tables

_BLUE, _ORANGE, _GREY = "#0072B2", "#D55E00", "#6e6e6e"  # Okabe and Ito's, as elsewhere
_GROUP = "Pictures"

# The key of the report without which a word is not on the page.
_NEEDS = {"Elo": "ratings", "kappa": "agreement", "alpha": "agreement", "position bias": "position_bias"}
DEFINITIONS = {
    "win rate": "mean over verdicts of 1 where the model's output is preferred to the baseline's, 0 where the "
    "baseline's is, 0.5 for a draw, in between where a judge weighs; in percent",
    "standard error": "sample standard deviation of these values over the square root of their number, as AlpacaEval's",
    "brackets": "95 % intervals: percentile bootstrap over prompts, all verdicts on a prompt drawn together. At equal "
    "length: from the regression's covariance, clustered by prompt. Position bias: exact binomial",
    "at equal length": "logistic regression of the verdict on tanh of the difference in characters over its standard "
    "deviation, predicted at a difference of 0 (AlpacaEval 2, arXiv:2404.04475), without that paper's instruction "
    "difficulty, which comes from many models' verdicts, and without its penalty",
    "length": "mean characters of an output",
    "Elo": "Bradley-Terry log-odds times 400 / ln 10, draws as half a win for both: 0 is as strong as the reference, "
    "+100 wins 64 % against it",
    "kappa": "Cohen's, over loss, draw and win: 1 always alike, 0 as by chance",
    "alpha": "Krippendorff's, ordinal: the same for several judges, some verdicts missing",
    "position bias": "share of decided verdicts for output_1, over comparisons that a judge saw in both orders: 50 % "
    "is none",
}


def render(report: Mapping[str, Any]) -> str:
    """The page of what `verdicts_summary.summarise` returned."""
    meanings = {word: text for word, text in DEFINITIONS.items() if _NEEDS.get(word, "statement") in report}
    parts = [
        "<h1>Published verdicts</h1>",
        f'<p class="answer">{escape(report["statement"])}</p>',
        *(f'<p class="remark">{escape(remark)}</p>' for remark in report["remarks"]),
        *(_table(title, rows) for title, rows in tables(report)),
        gallery(figures(report)),
        "<h2>What the words mean</h2>",
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in meanings.items()),
        f'</dl><p class="note">{report["bootstrap_samples"]:,} bootstrap samples.</p>',
    ]
    return page(report["statement"], parts)


def _table(title: str, rows: Sequence[Sequence[str]]) -> str:
    head, *body = ["".join(f"<{tag}>{escape(cell)}</{tag}>" for cell in row) for row, tag in _tagged(rows)]
    lines = "\n".join(f"<tr>{row}</tr>" for row in body)
    return (
        f'<h3>{escape(title)}</h3>\n<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{lines}\n'
        "</tbody></table></div>"
    )


def _tagged(rows: Sequence[Sequence[str]]) -> list[tuple[Sequence[str], str]]:
    return [(row, "td" if place else "th") for place, row in enumerate(rows)]


def figures(report: Mapping[str, Any]) -> list[Figure]:
    """Every figure that the numbers at hand allow."""
    drawn = []
    if "pairs" in report:
        drawn.append(_pairs([numbers for numbers in report["pairs"] if numbers["n"]]))
    if "datasets" in report:
        drawn.append(_datasets(report))
    if report.get("length_bins"):
        drawn.append(_length(report))
    if "ratings" in report and any(model["elo"] is not None for model in report["ratings"]["models"]):
        drawn.append(_ratings(report["ratings"]))
    return drawn


def _pairs(pairs: Sequence[Mapping[str, Any]]) -> Figure:
    names = [f"{numbers['model']} / {numbers['baseline']}" for numbers in pairs]
    caption = (
        "Win rate of the first model against the second, draws as half. Filled: as judged. Hollow: at equal length. "
        "Lines are 95 % intervals."
    )
    with canvas("Win rate of each pair", caption, _GROUP, 1.0 + 0.36 * len(names)) as (axes, finish):
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        for row, numbers in enumerate(pairs):
            _interval(axes, numbers, "win_rate", row - 0.12, filled=True)
            _interval(axes, numbers, "length_controlled_win_rate", row + 0.12, filled=False)
        _rows(axes, names)
        axes.set_xlim(-2, 102)
        axes.set_xlabel("win rate (% of verdicts)")
        return finish()


def _datasets(report: Mapping[str, Any]) -> Figure:
    found = report["datasets"]
    names = [f"{name} ({numbers['n']:,})" for name, numbers in found.items()]
    caption = (
        f"Win rate of {report['model']} by the dataset that a prompt is from, verdicts in brackets. Lines are 95 % "
        "intervals; the dotted line is the win rate over all."
    )
    with canvas("Win rate by dataset", caption, _GROUP, 1.0 + 0.34 * len(names)) as (axes, finish):
        axes.axvline(50, color="black", linewidth=1, linestyle="--")
        axes.axvline(report["win_rate"], color=_GREY, linewidth=1, linestyle=":")
        for row, numbers in enumerate(found.values()):
            _interval(axes, numbers, "win_rate", row, filled=True)
        _rows(axes, names)
        axes.set_xlim(-2, 102)
        axes.set_xlabel(f"win rate against {report['baseline']} (% of verdicts)")
        return finish()


def _length(report: Mapping[str, Any]) -> Figure:
    """One point a bin, evenly spaced: most differences are small and a few are huge."""
    bins = report["length_bins"]
    caption = (
        f"Verdicts in {len(bins)} groups of like size by how much longer {report['model']}'s output is than "
        f"{report['baseline']}'s; each label is a group's mean. Lines are 95 % intervals; dotted: the win rate over all"
        + ("; solid: at equal length." if report["length_controlled_win_rate"] is not None else ".")
    )
    with canvas("Length and verdict", caption, _GROUP, HEIGHT_IN) as (axes, finish):
        axes.axhline(50, color="black", linewidth=1, linestyle="--")
        axes.axhline(report["win_rate"], color=_GREY, linewidth=1, linestyle=":")
        if report["length_controlled_win_rate"] is not None:
            axes.axhline(report["length_controlled_win_rate"], color=_ORANGE, linewidth=1)
        rates = [one["win_rate"] for one in bins]
        bounds = whiskers(rates, [one["win_rate_ci"] for one in bins])
        axes.errorbar(range(len(bins)), rates, yerr=bounds, color=_BLUE, marker="o", elinewidth=0.9, zorder=3)
        axes.set_xticks(range(len(bins)), [f"{one['difference']:+,.0f}" for one in bins], rotation=45)
        axes.set_ylim(-2, 102)
        axes.set_xlabel("characters longer than the baseline's output")
        axes.set_ylabel("win rate (% of verdicts)")
        return finish()


def _ratings(found: Mapping[str, Any]) -> Figure:
    rated = [model for model in found["models"] if model["elo"] is not None]
    caption = (
        f"Bradley-Terry ratings in Elo points, {found['reference']} at 0. Lines are 95 % intervals over prompts"
        + ("; an arrow is an open end." if any(None in model["elo_ci"] for model in rated) else ".")
    )
    with canvas("Ratings", caption, _GROUP, 1.0 + 0.3 * len(rated)) as (axes, finish):
        axes.axvline(0, color="black", linewidth=1, linestyle="--")
        for row, model in enumerate(rated):
            value, (low, high) = model["elo"], model["elo_ci"]
            ends = [value if low is None else low, value if high is None else high]
            axes.errorbar(
                [value], [row], xerr=whiskers([value], [ends]), color=_BLUE, marker="o", elinewidth=0.9, zorder=3
            )
            for bound, points in ((low, -22), (high, 22)):
                if bound is None:
                    arrow = {"arrowstyle": "<-", "color": _BLUE, "linewidth": 0.9, "shrinkA": 0, "shrinkB": 0}
                    axes.annotate("", (value, row), (points, 0), textcoords="offset points", arrowprops=arrow)
        axes.margins(x=0.15)  # room for the arrows
        _rows(axes, [model["model"] for model in rated])
        axes.set_xlabel("Elo points")
        return finish()


def _interval(axes: Any, numbers: Mapping[str, Any], name: str, row: float, *, filled: bool) -> None:
    """A marker at a win rate, with its interval as far as there is one."""
    value = numbers.get(name)
    if value is not None:
        axes.errorbar(
            [value],
            [row],
            xerr=whiskers([value], [numbers[f"{name}_ci"] or [value, value]]),
            color=_BLUE if filled else _ORANGE,
            marker="o" if filled else "D",
            markerfacecolor=_BLUE if filled else "white",
            elinewidth=0.9,
            zorder=3,
        )


def _rows(axes: Any, names: Sequence[str]) -> None:
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.45, -0.55)
    axes.grid(axis="y", visible=False)

"""What figures are made of: colours and markers by candidate, a canvas, whiskers."""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure as MatplotlibFigure


WIDTH_IN = 4.6
HEIGHT_IN = 3.1
# The chain's own candidates and the sweep report's methods; all others take turns with what is left.
_FIXED = {
    "base": ("#6e6e6e", "s", "-"),
    "base-few-shot": ("#000000", "P", "--"),
    "sft": ("#0072B2", "o", "-"),
    "ppo": ("#D55E00", "^", "-"),
    "ppo-ptx": ("#009E73", "D", "-"),
    "best-of-n": ("#CC79A7", "v", "-"),
}
_COLOURS = ("#E69F00", "#56B4E9", "#009E73", "#CC79A7", "#000000")
_MARKERS = ("X", "<", ">", "p", "D", "v", "P")
_LINES = ("-", "--", "-.", ":")
SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "grid.color": "#dddddd",
    "grid.linewidth": 0.6,
    "axes.formatter.useoffset": False,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "legend.fontsize": 8,
    "lines.linewidth": 1.4,
    "lines.markersize": 5,
    "text.parse_math": False,  # a candidate's name may hold a dollar
    "svg.hashsalt": "rlhf",  # the same numbers give the same bytes
}


@dataclass(frozen=True)
class Figure:
    """One picture and the words under it."""

    title: str
    caption: str  # what is drawn, in words: also what a screen reader says
    svg: str
    group: str  # the section of the report it stands in


@dataclass(frozen=True)
class Style:
    colour: str
    marker: str
    line: str


def styles(candidates: Sequence[str]) -> dict[str, Style]:
    """Each candidate's look: fixed for the methods of the paper, by order for others."""
    looks: dict[str, Style] = {}
    others = 0
    best_of = next((name for name in candidates if name.startswith("sft-best-of-")), None)
    for name in candidates:
        method = "best-of-n" if name == best_of else name
        if method in _FIXED:
            looks[name] = Style(*_FIXED[method])
        else:
            colour, marker = _COLOURS[others % len(_COLOURS)], _MARKERS[others % len(_MARKERS)]
            looks[name] = Style(colour, marker, _LINES[(others + 1) % len(_LINES)])
            others += 1
    return looks


@contextmanager
def canvas(
    title: str, caption: str, group: str, height_in: float = HEIGHT_IN
) -> Iterator[tuple[Axes, Callable[[], Figure]]]:
    """Axes to draw on, and a function that turns them into a Figure once they are drawn."""
    import matplotlib
    from matplotlib.figure import Figure as MatplotlibFigure

    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]  # its keys are a Literal of all there are
        figure = MatplotlibFigure(figsize=(WIDTH_IN, height_in), layout="constrained")
        axes = figure.add_subplot()
        axes.set_title(title)
        yield axes, lambda: Figure(title, caption, _svg(figure), group)


def _svg(figure: MatplotlibFigure) -> str:
    stream = io.StringIO()
    figure.savefig(stream, format="svg", metadata={"Date": None, "Creator": None})
    return stream.getvalue()


def whiskers(values: Sequence[float], intervals: Sequence[Sequence[float]]) -> list[list[float]]:
    """Distances from each value down and up to its interval, as errorbar wants them."""
    return [
        [value - low for value, (low, _) in zip(values, intervals, strict=True)],
        [high - value for value, (_, high) in zip(values, intervals, strict=True)],
    ]


def legend_columns(names: Sequence[str]) -> int:
    """How many of these stand side by side in a legend as wide as the figure."""
    return max(1, min(len(names), 66 // (max(map(len, names)) + 8)))


def root_axis(axes: Axes) -> None:
    """Spaces the horizontal axis by the square root of its values, which start at 0."""
    axes.set_xscale("function", functions=(_root, _square))


def _root(values: Any) -> Any:
    import numpy as np

    return np.sqrt(np.maximum(values, 0.0))


def _square(values: Any) -> Any:
    return values**2

"""diversity.png: what the grown instructions ask for, how far they are from the seeds, how long they are.

The paper's figures 2 to 5 on one page. Shades, hatches and line styles tell everything apart without colour.
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.self_instruct.statistics import words_of
from rlhf.self_instruct.store import INSTANCES, INSTRUCTIONS, Store

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_BLUE, _ORANGE = "#0072B2", "#E69F00"  # Okabe and Ito's
_SHADES = ("#0072B2", "#56B4E9", "#a6d8f2", "#dceffa")  # of a verb's objects, the most frequent first
_SETTINGS = {
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.axisbelow": True,
    "axes.titlesize": 10,
    "axes.titlelocation": "left",
    "axes.titleweight": "bold",
    "legend.frameon": False,
    "text.parse_math": False,  # an instruction's words may hold a dollar
}
_ROOM_FOR_NAMES = 1.8  # width of the axes, in the longest bar's
_LONGEST_WORD = 14  # characters; what is no word at all can be much longer
_LONGEST_SHOWN = 0.99  # of the lengths; the few longer ones are counted in the last bin


def diversity(path: Path, summary: Mapping[str, Any], store: Store, max_similarity: float) -> None:
    """Writes the figure, aside and then in place; the same files give the same bytes."""
    import matplotlib
    from matplotlib.figure import Figure

    instructions, instances = store.rows(INSTRUCTIONS), store.rows(INSTANCES)
    words = words_of(instructions, instances)
    with matplotlib.rc_context(_SETTINGS):  # type: ignore[arg-type]  # its keys are a Literal of all there are
        figure = Figure(figsize=(11, 7.5), layout="constrained")
        grid = figure.add_gridspec(3, 2, width_ratios=(1.35, 1))
        _draw_verbs(figure.add_subplot(grid[:, 0]), summary["verbs"], len(instructions))
        _draw_similarity(figure.add_subplot(grid[0, 1]), instructions, max_similarity)
        _draw_lengths(figure.add_subplot(grid[1, 1]), "Length of instructions", {"instructions": words["instruction"]})
        both = {"inputs that are not empty": words["input"], "outputs": words["output"]}
        _draw_lengths(figure.add_subplot(grid[2, 1]), "Length of inputs and outputs", both)
        stream = io.BytesIO()
        figure.savefig(stream, format="png", dpi=120, metadata={"Software": None})
    aside = path.with_name(f".{path.name}")
    aside.write_bytes(stream.getvalue())
    os.replace(aside, path)


def _draw_verbs(axes: Axes, verbs: Sequence[Mapping[str, Any]], total: int) -> None:
    """A bar for each first word, split into its most frequent objects, which stand beside it in the same order."""
    axes.set_title("First word and its most frequent objects")
    longest = max((verb["count"] for verb in verbs), default=1)
    for row, verb in enumerate(verbs):
        left = 0
        for shade, thing in zip(_SHADES, verb["objects"], strict=False):
            axes.barh(row, thing["count"], left=left, color=shade, edgecolor="black", linewidth=0.5)
            left += thing["count"]
        axes.barh(row, verb["count"] - left, left=left, color="white", edgecolor="black", linewidth=0.5, hatch="////")
        names = ", ".join(_shortened(thing["object"]) for thing in verb["objects"])
        axes.annotate(names, (verb["count"], row), (5, 0), textcoords="offset points", va="center", fontsize=8)
    axes.set_yticks(range(len(verbs)), [_shortened(verb["verb"]) for verb in verbs])
    axes.set_ylim(max(len(verbs), 1) - 0.4, -0.6)
    axes.set_xlim(0, _ROOM_FOR_NAMES * longest)
    axes.locator_params(axis="x", integer=True)
    shown = sum(verb["count"] for verb in verbs)
    share = f"; {shown} of {total} are shown" if total > 0 else ""
    axes.set_xlabel(f"instructions (hatched: with other objects, or none{share})")


def _shortened(word: str) -> str:
    return word if len(word) <= _LONGEST_WORD else f"{word[: _LONGEST_WORD - 1]}…"


def _draw_similarity(axes: Axes, instructions: Sequence[Mapping[str, Any]], max_similarity: float) -> None:
    axes.set_title("Likeness of instructions to what was there")
    bins = [place / 20 for place in range(21)]
    axes.hist(
        [row["seed_rouge_l"] for row in instructions],
        bins=bins,
        color=_BLUE,
        alpha=0.45,
        edgecolor=_BLUE,
        label="nearest seed",
    )
    axes.hist(
        [row["rouge_l"] for row in instructions],
        bins=bins,
        histtype="step",
        color="black",
        linestyle="--",
        linewidth=1.4,
        label="nearest of all before",
    )
    axes.axvline(max_similarity, color="black", linestyle=":", linewidth=1.2)
    axes.annotate(
        "dropped from here",
        (max_similarity, 0.72),
        xycoords=("data", "axes fraction"),
        xytext=(4, 0),
        textcoords="offset points",
        va="top",
        fontsize=8,
    )
    axes.margins(y=0.3)  # room for the legend
    axes.set_xlim(0, 1)
    axes.set_xlabel("ROUGE-L (F-measure, 0 to 1)")
    axes.set_ylabel("instructions")
    axes.legend(loc="upper left", ncols=2, fontsize=8)


def _draw_lengths(axes: Axes, title: str, lengths: Mapping[str, Sequence[int]]) -> None:
    axes.set_title(title)
    everything = sorted(length for values in lengths.values() for length in values)
    # 25 bins or fewer, over all but the very longest.
    longest = everything[int(_LONGEST_SHOWN * (len(everything) - 1))] if everything else 1
    width = max(-(-(longest + 1) // 25), 1)
    bins = [width * place - 0.5 for place in range(longest // width + 2)]  # whole words
    for place, (name, values) in enumerate(lengths.items()):
        shown = [min(value, longest) for value in values]
        if place == 0:
            axes.hist(shown, bins=bins, color=_ORANGE, alpha=0.45, edgecolor=_ORANGE, label=name)
        else:
            axes.hist(shown, bins=bins, histtype="step", color="black", linestyle="--", linewidth=1.4, label=name)
    longer = " (the last bar holds all longer ones too)" if everything and everything[-1] > longest else ""
    axes.set_xlabel(f"words{longer}")
    axes.set_ylabel("instructions" if len(lengths) == 1 else "instances")
    if len(lengths) > 1:
        axes.legend(fontsize=8)

"""What one way of training costs or wins against another, from published samples of both on the same contexts.

InstructGPT's question (Ouyang et al. 2022, arXiv:2203.02155, section 4.2): what PPO loses of GPT-3 on public tasks (the
alignment tax), and what pretraining gradients (ptx) win back of it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.config import TextMetric
from rlhf.evaluation.published.samples import GROUPS, Cell, Context
from rlhf.evaluation.statistics.win_rates import Bootstrap, interval
from rlhf.evaluation.tasks.text_metrics import NAMES, TITLES

BASES = ("gpt", "base")
PPO, PTX = "ppo-noptx", "ppo-ptx"


@dataclass(frozen=True)
class Drawn:
    """A number and its bootstrap draws."""

    value: float
    draws: NDArray[np.float64]  # (bootstrap_samples,)

    @property
    def ci(self) -> list[float]:
        return interval(self.value, self.draws, len(self.draws)).ci


class _Draws:
    """Numbers of cells on chosen contexts. Equally many contexts are drawn alike, so differences are paired."""

    def __init__(self, bootstrap_samples: int, seed: int) -> None:
        self._settings = {"samples": bootstrap_samples, "seed": seed}
        self._bootstraps: dict[int, Bootstrap] = {}
        self._found: dict[tuple[int, int, tuple[Context, ...]], Drawn] = {}  # a corpus's BLEU takes its time

    def number(self, cell: Cell, place: int, contexts: Sequence[Context]) -> Drawn:
        """Of `cell.scores[place]`."""
        key = (id(cell), place, tuple(contexts))
        if key not in self._found:
            rows = {context: row for row, context in enumerate(cell.contexts)}
            scores = cell.scores[place].of([rows[context] for context in contexts])
            if len(contexts) not in self._bootstraps:
                self._bootstraps[len(contexts)] = Bootstrap(len(contexts), **self._settings)
            sums = self._bootstraps[len(contexts)].sums(scores.summands)
            self._found[key] = Drawn(scores.value, scores.of_sums(sums))
        return self._found[key]

    def difference(self, pairs: Sequence[tuple[Cell, Cell]], place: int, contexts: Sequence[Context]) -> Drawn:
        """The mean over `pairs` of the first's number minus the second's."""
        both = [(self.number(a, place, contexts), self.number(b, place, contexts)) for a, b in pairs]
        return Drawn(
            float(np.mean([a.value - b.value for a, b in both])), np.mean([a.draws - b.draws for a, b in both], axis=0)
        )


def summarise(cells: Sequence[Cell], metric: TextMetric, *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """What report.json holds, as JSON values; numbers from 0 to 100, `ci` their 95 % intervals over contexts.

    cells:       a cell's group, `n`, and by name each number of the metric, with NAME_ci.
    differences: `a`'s number minus `b`'s, of one size and prompt type, on the `n` contexts that both have.
    overall:     the mean of such differences of two methods over `cells` sizes and prompt types, on what all have; and
                 the `lowest` and the `highest` of them.
    Methods are compared with the base model (gpt, base) or the first of the file, not all with all, so that few
    intervals answer one question each; and PPO with ptx is compared with PPO without.
    """
    draws = _Draws(bootstrap_samples, seed)
    names = NAMES[metric]
    compared = [(a, b, _pairs(cells, a, b)) for a, b in _compared(methods(cells))]
    found: dict[str, Any] = {
        "metric": metric.value,
        "bootstrap_samples": bootstrap_samples,
        "cells": [_cell(draws, cell, names) for cell in cells],
        "differences": [
            {"a": label(a), "b": label(b), **_kind(a), **difference}
            for place, name in enumerate(names)
            for _, _, pairs in compared
            for a, b in pairs
            if (difference := _difference(draws, [(a, b)], place, name))
        ],
        "overall": [
            {"a": a, "b": b, **difference, "cells": len(pairs), **_span(draws, pairs, place)}
            for place, name in enumerate(names)
            for a, b, pairs in compared
            if pairs and (difference := _difference(draws, pairs, place, name))
        ],
    }
    found |= {"statement": statement(found), "basis": basis(found, cells)}
    return found


def methods(cells: Sequence[Cell]) -> list[str]:
    return list(dict.fromkeys(cell.method for cell in cells))


def _compared(names: Sequence[str]) -> list[tuple[str, str]]:
    """What PPO costs, what ptx wins back of it, what is left; then the others against the base or the first."""
    base = next((name for name in BASES if name in names), names[0])
    others = [name for name in names if name != base]
    wanted = [(PPO, base), (PTX, PPO), (PTX, base), *((name, base) for name in others)]
    return [(a, b) for a, b in dict.fromkeys(wanted) if a in others and b in names and a != b]


def _pairs(cells: Sequence[Cell], a: str, b: str) -> list[tuple[Cell, Cell]]:
    """Cells of two methods, of one size and prompt type each."""
    of_b = {(cell.size, cell.prompt_type): cell for cell in cells if cell.method == b}
    return [
        (cell, of_b[cell.size, cell.prompt_type])
        for cell in cells
        if cell.method == a and (cell.size, cell.prompt_type) in of_b
    ]


def label(cell: Cell) -> str:
    """What `a` and `b` call it; "" for the one cell of a table without groups."""
    return next(iter(cell.group.values()), "")


def _kind(cell: Cell) -> dict[str, str]:
    return {"prompt_type": cell.prompt_type} if cell.prompt_type else {}


def _cell(draws: _Draws, cell: Cell, names: Sequence[str]) -> dict[str, Any]:
    row: dict[str, Any] = {**cell.group, "n": len(cell.contexts)}
    for place, name in enumerate(names):
        number = draws.number(cell, place, cell.contexts)
        row |= {name: number.value, f"{name}_ci": number.ci}
    return row


def _difference(draws: _Draws, pairs: Sequence[tuple[Cell, Cell]], place: int, name: str) -> dict[str, Any] | None:
    """None where the cells have no context in common."""
    contexts = _shared(pairs)
    if not contexts:
        return None
    number = draws.difference(pairs, place, contexts)
    return {"metric": name, "difference": number.value, "ci": number.ci, "n": len(contexts)}


def _span(draws: _Draws, pairs: Sequence[tuple[Cell, Cell]], place: int) -> dict[str, float]:
    contexts = _shared(pairs)
    alone = [draws.difference([pair], place, contexts).value for pair in pairs]
    return {"lowest": min(alone), "highest": max(alone)}


def _shared(pairs: Sequence[tuple[Cell, Cell]]) -> list[Context]:
    """The contexts that all these cells have, in the first one's order."""
    every = [cell for pair in pairs for cell in pair]
    shared = set(every[0].contexts).intersection(*(cell.contexts for cell in every[1:]))
    return [context for context in every[0].contexts if context in shared]


def statement(report: Mapping[str, Any]) -> str:
    """The answer in one sentence, by the first of the metric's numbers."""
    name = NAMES[TextMetric(report["metric"])][0]
    title, cells = TITLES[name], report["cells"]
    clauses = [
        _won_back(row) if (row["a"], row["b"]) == (PTX, PPO) else _clause(row, title)
        for row in report["overall"]
        if row["metric"] == name
    ]
    if clauses:
        return "; ".join(clauses) + "."
    best = max(cells, key=lambda cell: cell[name])
    number = f"{best[name]:.1f} {bracketed(best[f'{name}_ci'])}, over {best['n']:,} contexts."
    if len(cells) == 1:
        return f"{title} is {number}"
    return f"The highest {title} is that of {' '.join(best[key] for key in GROUPS if key in best)}, {number}"


def basis(report: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """What the statement's numbers are of, in sentences."""
    name = NAMES[TextMetric(report["metric"])][0]
    rows = [row for row in report["overall"] if row["metric"] == name]
    if not rows:
        return "In brackets: 95 % intervals."
    counts = sorted({row["n"] for row in rows})
    contexts = f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"
    kinds = (("sizes", {cell.size for cell in cells}), ("prompt types", {cell.prompt_type for cell in cells}))
    over = " and ".join(f"{len(values)} {kind}" for kind, values in kinds if len(values) > 1)
    said = f"Differences are on the same {contexts} contexts{f', means over {over}' if over else ''}"
    first = rows[0]
    if over:
        said += (
            f"; among these {first['a']} minus {first['b']} is from {first['lowest']:+.1f} to {first['highest']:+.1f}"
        )
    return f"{said}. In brackets: 95 % intervals."


def _clause(row: Mapping[str, Any], title: str) -> str:
    by, (low, high) = row["difference"], row["ci"]
    if low <= 0 <= high:
        return f"{row['a']} and {row['b']} cannot be told apart ({by:+.1f} {title} {bracketed(row['ci'])})"
    if by > 0:
        return f"{row['a']} lies {by:.1f} {title} above {row['b']} {bracketed(row['ci'])}"
    return f"{row['a']} lies {-by:.1f} {title} below {row['b']} {bracketed([-high, -low])}"


def _won_back(row: Mapping[str, Any]) -> str:
    by, (low, high) = row["difference"], row["ci"]
    if low > 0:
        return f"pretraining gradients win back {by:.1f} {bracketed(row['ci'])}"
    if high < 0:
        return f"pretraining gradients cost {-by:.1f} {bracketed([-high, -low])}"
    return f"what pretraining gradients change cannot be told from nothing ({by:+.1f} {bracketed(row['ci'])})"


def bracketed(ci: Sequence[float]) -> str:
    return f"[{ci[0]:.1f}, {ci[1]:.1f}]"

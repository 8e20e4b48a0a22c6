"""The numbers of published samples as tables, and as lines for a terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.config import TextMetric
from rlhf.evaluation.published.differences import bracketed, methods
from rlhf.evaluation.published.samples import Cell
from rlhf.evaluation.tasks.text_metrics import NAMES, TITLES


@dataclass(frozen=True)
class Table:
    """Numbers under one kind of prompt: a row a method, a column a size."""

    title: str  # the prompt type; "" where there is none
    columns: list[str]  # sizes; [""] where models have none
    rows: list[tuple[str, list[Mapping[str, Any] | None]]]  # a row of the report's `cells` for each column


def tables(report: Mapping[str, Any], cells: Sequence[Cell]) -> list[Table]:
    """A table for each prompt type; methods and sizes in the order of the file."""
    rows = {(cell.prompt_type, cell.method, cell.size): row for cell, row in zip(cells, report["cells"], strict=True)}
    sizes = list(dict.fromkeys(cell.size for cell in cells))
    return [
        Table(kind, sizes, [(method, [rows.get((kind, method, size)) for size in sizes]) for method in methods(cells)])
        for kind in dict.fromkeys(cell.prompt_type for cell in cells)
    ]


def text_table(report: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """All numbers with their intervals as aligned lines, and the statement under them."""
    blocks = []
    for name in NAMES[TextMetric(report["metric"])]:
        for table in tables(report, cells):
            title = ", ".join(part for part in (TITLES[name], table.title) if part)
            rows = [[title, *table.columns]]
            rows += [[method, *(shown(cell, name) for cell in row)] for method, row in table.rows]
            blocks.append(_aligned(rows))
    return "\n\n".join([*blocks, f"{report['statement']}\n{report['basis']}"])


def shown(cell: Mapping[str, Any] | None, name: str) -> str:
    return "-" if cell is None else f"{cell[name]:.1f} {bracketed(cell[f'{name}_ci'])}"


def _aligned(rows: Sequence[Sequence[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    return "\n".join(line.rstrip() for line in lines)

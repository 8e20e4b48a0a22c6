"""What others published, measured with our ruler: text metrics of their outputs, win rates of their verdicts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.artifacts import StageFolder, write_json_atomic, write_text_atomic
from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.evaluation.published import samples, verdicts, verdicts_page
from rlhf.evaluation.published.verdicts_report import summarise
from rlhf.evaluation.published.verdicts_text import text_table
from rlhf.pipeline import run_folder


def run(config: Config) -> None:
    """Prints the numbers, and writes them to report.json in the run's compare/.

    Raises UserError where a comparison of models lies there, whose report it would replace.
    """
    settings = config.compare
    folder = StageFolder(run_folder(config) / "compare")
    if folder.manifest is not None:
        raise UserError(f"{folder.path} holds a comparison of models; choose another run with run.name=NAME.")
    if settings.verdicts is not None:
        report = summarise(
            verdicts.read(settings.verdicts), bootstrap_samples=settings.bootstrap_samples, seed=config.seed
        )
        shown, page = text_table(report), verdicts_page.render(report)
    else:
        assert settings.samples is not None
        assert settings.metric is not None, "the config requires both"
        cells = samples.cells(
            settings.samples, settings.metric, bootstrap_samples=settings.bootstrap_samples, seed=config.seed
        )
        report = {"metric": settings.metric.value, "cells": cells}
        shown, page = _table(cells), None
    folder.path.mkdir(parents=True, exist_ok=True)
    write_json_atomic(folder.path / "report.json", report)
    if page is not None:
        write_text_atomic(folder.path / "report.html", page)
    print(f"{shown}\n\nreport: {folder.path / ('report.json' if page is None else 'report.html')}")


def _table(cells: Sequence[Mapping[str, Any]]) -> str:
    names = [name for name in cells[0] if not name.endswith("_ci")]
    rows = [names, *([_shown(cell, name) for name in names] for cell in cells)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(names))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    return "\n".join(line.rstrip() for line in lines)


def _shown(cell: Mapping[str, Any], name: str) -> str:
    value = cell[name]
    if f"{name}_ci" not in cell:
        return str(value)
    low, high = cell[f"{name}_ci"]
    return f"{value:5.2f} [{low:5.2f}, {high:5.2f}]"

"""Published outputs beside references, as cells: the samples of one model under one prompt, scored.

Samples are a table with the columns `context`, `ref_text`, `sample` and whichever of `model_type` and `prompt_type`
there are, as InstructGPT's automatic-eval-samples. All of it is text as it stands, "None" and "NA" among it, and no
sample is cut: those of InstructGPT end before the first line break.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.config import TextMetric
from rlhf.data.files import Row
from rlhf.data.rows import rows_of
from rlhf.errors import UserError
from rlhf.evaluation.tasks.qa_metrics import Answer
from rlhf.evaluation.tasks.text_metrics import Scores, score

GROUPS = ("model_type", "prompt_type")
_COLUMNS = ("context", "ref_text", "sample")
# Between ways of putting an answer stands "|"; in InstructGPT's summaries it stands between sentences of one.
_WITH_ALTERNATIVES = (TextMetric.squad, TextMetric.drop, TextMetric.accuracy)
_MODEL = re.compile(r"(?P<method>.+)-(?P<size>small|medium|large|xl|\d+(\.\d+)?[kmbt])", re.IGNORECASE)
_UNITS = {"k": 1e3, "m": 1e6, "b": 1e9, "t": 1e12}
_GPT3_PARAMETERS = {"small": 125e6, "medium": 350e6, "large": 760e6, "xl": 1.3e9}  # Brown et al. 2020, table 2.1

Context = tuple[str, int]
"""A prompt's text, and 1 for its second row within a cell, 2 for its third."""


@dataclass(frozen=True)
class Cell:
    """One model's samples under one kind of prompt, in the order of the file."""

    group: dict[str, str]  # by those of GROUPS that the table has
    method: str  # how the model was trained, where all model_types are METHOD-SIZE; else what tells cells apart
    size: str  # "" where model_types are no METHOD-SIZE
    contexts: list[Context]
    references: list[list[Answer]]
    samples: list[str]
    scores: list[Scores]

    @property
    def prompt_type(self) -> str:
        """ "" where the table has none, or nothing else."""
        return self.group.get("prompt_type", "") if "model_type" in self.group else ""


def read(path: str, metric: TextMetric) -> list[Cell]:
    """The table's cells in the order of the file. Raises UserError for a row that lacks a column or text in it."""
    rows: dict[tuple[str, ...], list[Mapping[str, Any]]] = {}
    names: tuple[str, ...] | None = None
    for row in rows_of(path, "compare.samples"):
        _check(row)
        names = names if names is not None else tuple(name for name in GROUPS if name in row.values)
        rows.setdefault(tuple(str(row.values.get(name)) for name in names), []).append(row.values)
    if names is None:
        raise UserError(f"{path} holds no rows; set compare.samples to a table of samples.")
    groups = [dict(zip(names, group, strict=True)) for group in rows]
    methods = _methods([next(iter(group.values()), "") for group in groups])
    return [
        _cell(group, *method, given, metric)
        for group, method, given in zip(groups, methods, rows.values(), strict=True)
    ]


def _cell(group: dict[str, str], method: str, size: str, rows: Sequence[Mapping[str, Any]], metric: TextMetric) -> Cell:
    seen: Counter[str] = Counter()
    contexts = []
    for row in rows:
        contexts.append((row["context"], seen[row["context"]]))
        seen[row["context"]] += 1
    references = [_alternatives(row["ref_text"], metric) for row in rows]
    samples = [row["sample"] for row in rows]
    return Cell(group, method, size, contexts, references, samples, score(metric, samples, references))


def _check(row: Row) -> None:
    missing = [name for name in ("context", "sample") if not isinstance(row.values.get(name), str)]
    missing += [] if _is_reference(row.values.get("ref_text")) else ["ref_text"]
    if missing:
        raise UserError(
            f"{row.where}: it has no text under `{missing[0]}`; compare.samples takes tables with "
            f"{', '.join(_COLUMNS)}, and {' and '.join(GROUPS)} where there are several."
        )


def _is_reference(value: Any) -> bool:
    """A text; in JSON also a list of alternatives, each a text or a list of spans."""
    if isinstance(value, list):
        spans = [one if isinstance(one, list) else [one] for one in value]
        return bool(spans) and all(one and all(isinstance(span, str) for span in one) for one in spans)
    return isinstance(value, str)


def _alternatives(reference: str | list[Answer], metric: TextMetric) -> list[Answer]:
    if isinstance(reference, list):
        return reference
    return list(reference.split("|")) if metric in _WITH_ALTERNATIVES else [reference]


def _methods(models: Sequence[str]) -> list[tuple[str, str]]:
    """(method, size) of each model; size "" where one of them is no METHOD-SIZE."""
    parsed = [_MODEL.fullmatch(model) for model in models]
    return [
        (match["method"], match["size"]) if match and all(parsed) else (model, "")
        for match, model in zip(parsed, models, strict=True)
    ]


def parameters(size: str) -> float:
    """Of a model of this size: "6b" is 6e9, and "xl" GPT-3's 1.3e9."""
    return _GPT3_PARAMETERS.get(size.lower()) or float(size[:-1]) * _UNITS[size[-1].lower()]

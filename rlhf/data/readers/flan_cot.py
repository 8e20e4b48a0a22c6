"""FLAN's chain-of-thought tables: a question, its answer, and a rationale that people wrote (arXiv:2210.11416).

Source: google-research/FLAN, flan/v2/cot_data/*_train.tsv (Apache-2.0 for the repository; the data sets' own terms
apply), one a data set: gsm8k_train.tsv has 7,473 rows, strategyqa_train.tsv 2,061. No header, no quoting: a line is a
row, a tab ends a field, and the two characters \\n stand for a line break. The FLAN collection
mixes them in under templates of its own; fine-tuning on them is what taught Flan-PaLM to reason step by step.

The response is the rationale, then on a line of its own "The answer is X.", so that an answer can be found in what a
model writes. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.fields import text, user_prompt
from rlhf.data.records import BadRowError, Demonstration

COLUMNS = ("question", "answer", "rationale")


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, from a row under COLUMNS. Raises BadRowError."""
    question, answer, rationale = (_field(row, column) for column in COLUMNS)
    return [Demonstration(user_prompt(question), f"{rationale}\nThe answer is {answer.removesuffix('.')}.")]


def _field(row: Mapping[str, Any], column: str) -> str:
    value = text(row, column).replace("\\n", "\n").strip()
    if not value:
        raise BadRowError(f"`{column}` is empty or whitespace")
    return value

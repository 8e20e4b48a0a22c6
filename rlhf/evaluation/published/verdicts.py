"""Published verdicts: which of two models' outputs a judge preferred, a row each.

Rows are AlpacaEval's annotations or AlpacaFarm's: `preference` is 1 where `output_1` is better, 2 where `output_2` is,
0 or 1.5 for a draw, in between where a judge weighs, null for no verdict. `generator_1` and `generator_2` name the
models, `annotator` and `annotator_index` the judge, `instruction` and `input` make the prompt, `dataset` says where it
is from. All but `preference` may be missing.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from rlhf.data.files import Row, shorten
from rlhf.data.rows import rows_of
from rlhf.errors import UserError

UNNAMED = ("output_1", "output_2")  # what models are called that the file does not name
_NO_VERDICT = ("", "nan", "null", "none", "na")  # of a table, whose values are text


@dataclass(frozen=True)
class Verdict:
    """One judge on two outputs for one prompt, as the row has them."""

    prompt: str  # alike for rows on the same prompt
    generators: tuple[str, str]  # of output_1 and output_2
    outputs: tuple[str | None, str | None]  # None: not in the file
    won: float | None  # 1 where output_2 is better, 0 where output_1, 0.5 for a draw; None: no verdict
    judge: str
    dataset: str  # "": not in the file


def read(path: str) -> list[Verdict]:
    """All rows, those without a verdict too.

    Raises UserError for a row without a preference, for a preference that is none, or where no row has a verdict.
    """
    found = [_verdict(row) for row in rows_of(path, "compare.verdicts")]
    if all(verdict.won is None for verdict in found):
        raise UserError(f"{path} holds no verdict; set compare.verdicts to a file with some.")
    return found


def _verdict(row: Row) -> Verdict:
    values = row.values
    if "preference" not in values:
        raise UserError(f"{row.where}: it has no `preference`; compare.verdicts takes AlpacaEval's annotations.")
    first, second = (_name(values.get(f"generator_{i}")) or UNNAMED[i - 1] for i in (1, 2))
    asked = [_name(values.get(key)) for key in ("instruction", "input")]
    return Verdict(
        prompt="\n\n".join(part for part in asked if part) or row.where,
        generators=(first, second),
        outputs=(_text(values, "output_1"), _text(values, "output_2")),
        won=_won(values["preference"], row),
        judge=" ".join(name for key in ("annotator", "annotator_index") if (name := _name(values.get(key)))),
        dataset=_name(values.get("dataset")),
    )


def _name(value: Any) -> str:
    return "" if value is None else str(value)


def _text(values: Mapping[str, Any], key: str) -> str | None:
    value = values.get(key)
    return value if isinstance(value, str) else None


def _won(preference: Any, row: Row) -> float | None:
    number = preference
    if isinstance(preference, str) and row.file.removesuffix(".gz").endswith((".csv", ".tsv")):
        number = _number(preference)
    if number is None or (isinstance(number, float) and math.isnan(number)):
        return None
    if isinstance(number, int | float) and not isinstance(number, bool):
        if number == 0:
            return 0.5
        if 1 <= number <= 2:
            return float(number) - 1
    raise UserError(
        f"{row.where}: its `preference` is {shorten(preference)!r}; mend it: 1, 2, a number between them, 0 or null."
    )


def _number(text: str) -> float | str | None:
    """A table's value as the number it spells; the text itself where it spells none."""
    if text.strip().lower() in _NO_VERDICT:
        return None
    try:
        return float(text)
    except ValueError:
        return text

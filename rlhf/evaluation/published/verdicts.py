"""Published verdicts: which of two models' outputs a judge preferred, a row each.

Rows are AlpacaEval's annotations or AlpacaFarm's: `preference` is 1 where `output_1` is better, 2 where `output_2` is,
0 or 1.5 for a draw, in between where a judge weighs, null for no verdict. `generator_1` and `generator_2` name the
models, `annotator` and `annotator_index` the judge, `instruction` and `input` make the prompt, `dataset` says where it
is from. All but `preference` may be missing.

Or MT-bench's and Chatbot Arena's (Zheng et al. 2023, arXiv:2306.05685): `winner` is model_a, model_b or a tie,
`model_a` and `model_b` name the models, `judge` the judge; `question_id` and `turn` make the prompt, and `turn` says
where it is from. `conversation_a` and `conversation_b` hold the outputs.
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
    if "preference" not in values and {"model_a", "model_b", "winner"} <= values.keys():
        return _of_arena(row)
    if "preference" not in values:
        raise UserError(
            f"{row.where}: it has no `preference`; compare.verdicts takes AlpacaEval's annotations, or rows of "
            "MT-bench and Chatbot Arena with `model_a`, `model_b` and `winner`."
        )
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


def _of_arena(row: Row) -> Verdict:
    values = row.values
    models = _name(values["model_a"]), _name(values["model_b"])
    conversations = [values.get(f"conversation_{side}") for side in "ab"]
    turn = _name(values.get("turn"))
    asked = _name(values.get("question_id")) or _said(conversations[0], 0) or row.where
    judge = values.get("judge")
    return Verdict(
        prompt=f"{asked}, turn {turn}" if turn else asked,
        generators=models,
        outputs=(_said(conversations[0], -1), _said(conversations[1], -1)),
        won=_of_winner(values["winner"], models, row),
        judge=" ".join(map(str, judge)) if isinstance(judge, list) else _name(judge),
        dataset=f"turn {turn}" if turn else "",
    )


def _said(conversation: Any, place: int) -> str | None:
    """What the conversation's turn at `place` says; None where there is none."""
    if not isinstance(conversation, list) or not conversation or not isinstance(conversation[place], Mapping):
        return None
    return _text(conversation[place], "content")


def _of_winner(winner: Any, models: tuple[str, str], row: Row) -> float | None:
    """Of model_b: 1 where it won. Judges that could not be read are an error in these files, and no verdict here."""
    said = str(winner).strip().lower() if winner is not None else ""
    if said in _NO_VERDICT or said == "error":
        return None
    if said.startswith("tie") or said in ("both_bad", "bothbad"):
        return 0.5
    if said in ("model_a", "model_b"):
        return float(said == "model_b")
    if winner in models and models[0] != models[1]:
        return float(winner == models[1])
    raise UserError(
        f"{row.where}: its `winner` is {shorten(winner)!r}; mend it: model_a, model_b, tie, or the name of a model."
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

"""Responses rated by five attributes: HelpSteer (Wang et al. 2023, arXiv:2311.09528) and HelpSteer2 (2024, 2406.08673).

Source: nvidia/HelpSteer (35,331 training and 1,789 validation rows, up to 4 responses a prompt) and nvidia/HelpSteer2
(20,324 and 1,038, 2 a prompt) on the hub, {train,validation}.jsonl.gz, CC BY 4.0. A row: `prompt`, `response`, and from
0 to 4 `helpfulness`, `correctness`, `coherence`, `complexity`, `verbosity`. A HelpSteer2 prompt of several turns is one
text: after the first user's turn, a line "<extra_id_1>Assistant" or "<extra_id_1>User" opens each.

Rows of a prompt stand side by side; `gather` makes one row of them, whose responses are ranked by helpfulness: that
attribute says how good a response is overall, while verbosity and complexity describe it and are no worth, and
correctness and coherence are part of what helps. It gives the margins too. The papers trained models of all
attributes (SteerLM) and, in HelpSteer2, reward models that are used by helpfulness above all; they fine-tuned on
these rows too. The single best response is a demonstration, and so is the response of a prompt that has one only.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from itertools import groupby
from typing import Any

from rlhf.data.files import Row
from rlhf.data.readers.comparisons import best
from rlhf.data.readers.fields import messages, number, prompt, ranking, ranks_of, text
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking, Role

_TURN = re.compile(r"\s*<extra_id_1>(User|Assistant)(?:\n|\Z)")
_ROLES = {"User": Role.user, "Assistant": Role.assistant}
_GATHERED = "rows"


def gather(rows: Iterable[Row]) -> Iterator[Row]:
    """Adjacent rows of one prompt as one row, {"rows": theirs}; others as they are."""
    for _, group in groupby(enumerate(rows), lambda numbered: _key(*numbered)):
        first, *others = (row for _, row in group)
        if not others:
            yield first
        else:
            together = [first, *others]
            values = {_GATHERED: [row.values for row in together]}
            yield replace(first, values=values, merged=sum(row.merged for row in together))


def _key(place: int, row: Row) -> tuple[str, Any]:
    """Equal for rows of one prompt in one file; a row without a prompt is like no other."""
    asked = row.values.get("prompt") if isinstance(row.values, Mapping) else None
    return row.file, asked if isinstance(asked, str) else place


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    """Of a file's row, or of one that `gather` made."""
    rows = _rows(row)
    asked = _prompt(text(rows[0], "prompt"))
    responses = [text(values, "response") for values in rows]
    scores = tuple(_helpfulness(values) for values in rows)
    if len(rows) == 1:
        return [Demonstration(asked, responses[0])]
    ranked = ranking(asked, responses, ranks_of(scores), margins=scores)
    return [*best(ranked), ranked]


def _rows(row: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    rows = row.get(_GATHERED, [row])
    if not isinstance(rows, list) or not rows or not all(isinstance(values, Mapping) for values in rows):
        raise BadRowError(f"`{_GATHERED}` is not a list of rows")
    return rows


def _prompt(conversation: str) -> Prompt:
    first, *rest = _TURN.split(conversation)
    turns = [{"role": "User", "text": first}] if first else []
    turns += [{"role": name, "text": content} for name, content in zip(rest[::2], rest[1::2], strict=True)]
    return prompt(messages(turns, _ROLES, column="prompt", role_key="role", text_key="text"), column="prompt")


def _helpfulness(row: Mapping[str, Any]) -> float:
    score = number(row.get("helpfulness"), "helpfulness")
    if not 0 <= score <= 4:
        raise BadRowError(f"`helpfulness` is {score:g}, and ratings are from 0 to 4")
    return score

"""A row of one's own before its shape is told: what is empty is absent, other names are ours, judgements are read.

A column that judges a response (a label, a reward, a rating, ...) changes what the row means. One that the row's shape
does not read refuses the row, so that what people rejected is never learned as a demonstration; data.ignore=[COLUMN]
says that it means nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from rlhf.data.files import Row
from rlhf.data.readers import fields
from rlhf.data.records import BadRowError

# Columns that say how good a response is, or which of several won.
JUDGEMENTS = frozenset(
    (
        *("label", "labels", "score", "scores", "reward", "rewards", "rating", "ratings", "rank", "ranks", "winner"),
        *(
            "preference",
            "preference_strength",
            "weight",
            "helpfulness",
            "correctness",
            "kto_tag",
            "is_good",
            "accepted",
        ),
    )
)
_READ = frozenset({"scores", "ranks"})  # beside `completions`
_RESPONSES = ("response", "completion")
_MAIN = ("helpfulness", "reward", "score", "rating")  # of several numbers the one that says how good it is overall
# Numbers that may stand together: HelpSteer's five, and what other files call the one.
_DESCRIBES = frozenset((*_MAIN, "correctness", "coherence", "complexity", "verbosity"))
_TRANSCRIPT = re.compile(r"\A\s*Human:(.*?)\s*(?:\n\n)?Assistant:\s*\Z", re.DOTALL)


def gather(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of one prompt with a number each for its response as one ranking; all others pass, and these come last."""
    waiting: dict[tuple[str, str], list[Row]] = {}
    for row in rows:
        key = _scored(row)
        if key is None:
            yield row
        else:
            waiting.setdefault(key, []).append(row)
    for together in waiting.values():
        yield together[0] if len(together) == 1 else _ranked(together)


def _scored(row: Row) -> tuple[str, str] | None:
    values = present(row.values) if isinstance(row.values, Mapping) else {}
    if isinstance(values.get("prompt"), str) and _response_of(values) is not None and _worth(values) is not None:
        return row.file, values["prompt"]
    return None


def _response_of(values: Mapping[str, Any]) -> str | None:
    return next((values[key] for key in _RESPONSES if isinstance(values.get(key), str)), None)


def _worth(values: Mapping[str, Any]) -> float | None:
    """The number that judges the row's one response; None without one, or where there are others that are not known."""
    judged = {key: values[key] for key in values if key in JUDGEMENTS}
    if not judged or not set(judged) <= _DESCRIBES:
        return None
    main = next((key for key in _MAIN if key in judged), None)
    value = judged.get(main) if main is not None else None
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _ranked(rows: list[Row]) -> Row:
    """The best is a demonstration too, where one is."""
    values = [present(row.values) for row in rows]
    scores = [worth for each in values if (worth := _worth(each)) is not None]
    merged = {
        **{key: value for key, value in values[0].items() if key not in (*_RESPONSES, *_DESCRIBES)},
        "completions": [_response_of(each) for each in values],
        "scores": scores,
    }
    if scores.count(max(scores)) == 1:
        merged["response"] = merged["completions"][scores.index(max(scores))]
    return replace(rows[0], values=merged, merged=sum(row.merged for row in rows))


def present(row: Mapping[str, Any]) -> dict[str, Any]:
    """Without columns that are null or an empty list, as concatenated and Parquet data have them."""
    return {key: value for key, value in row.items() if value is not None and value != []}


def canonical(row: Mapping[str, Any]) -> dict[str, Any]:
    """The row with our names for what other files call otherwise. Raises BadRowError for a rejected response."""
    named = _unpaired(present(row))
    if "conversation" in named and "conversations" not in named and "messages" not in named:
        named["conversations"] = named.pop("conversation")
    for column in ("messages", "conversations"):
        if isinstance(named.get(column), str):
            named[column] = _listed(named[column], column)
    if "question" in named and "prompt" not in named and {"chosen", "answer", "response", "completions"} & named.keys():
        named["prompt"] = named.pop("question")
        if isinstance(named.get("answer"), str) and "response" not in named:
            named["response"] = named.pop("answer")
    if {"instruction", "chosen", "rejected"} <= named.keys() and "prompt" not in named:
        given = fields.optional_text(named, "input")
        named["prompt"] = f"{fields.text(named, 'instruction')}\n\n{given}" if given else named["instruction"]
        named = {key: value for key, value in named.items() if key not in ("instruction", "input")}
    if {"response_1", "response_2", "preference_strength"} <= named.keys():
        named = _two_with_strength(named)
    if isinstance(named.get("answers"), list) and "completions" not in named:
        named = _answers_with_ranks(named)
    return named


def _unpaired(row: dict[str, Any]) -> dict[str, Any]:
    """A response with a yes or a no: KTO's rows (arXiv:2402.01306)."""
    labels = [key for key in ("label", "kto_tag") if isinstance(row.get(key), bool)]
    if {"chosen", "completions"} & row.keys() or not labels:
        return row
    if not row[labels[0]]:
        raise BadRowError(
            f"its `{labels[0]}` is false, so its response was rejected and is nothing to learn from",
            "leave it out with data.on_bad_row=skip, or bring a chosen and a rejected response to each prompt",
        )
    return {key: value for key, value in row.items() if key not in labels}


def _listed(value: str, column: str) -> Any:
    try:
        return json.loads(value)
    except ValueError:
        raise BadRowError(f"`{column}` is a text and no list of turns") from None


def _two_with_strength(row: dict[str, Any]) -> dict[str, Any]:
    """Below 0 the first is better by so much, above 0 the second: HelpSteer3's rows."""
    strength = fields.number(row["preference_strength"], "preference_strength")
    worth = (max(-strength, 0.0), max(strength, 0.0))
    rest = {k: v for k, v in row.items() if k not in ("response_1", "response_2", "preference_strength")}
    return {**rest, "completions": [row["response_1"], row["response_2"]], "scores": list(worth)}


def _answers_with_ranks(row: dict[str, Any]) -> dict[str, Any]:
    """Objects of a text and its place, the least the best: rows of several rated data sets."""
    texts, places = [], []
    for index, answer in enumerate(row["answers"]):
        told = answer if isinstance(answer, Mapping) else {}
        text = next((told[key] for key in ("answer", "text", "content") if key in told), None)
        if not isinstance(text, str) or "rank" not in told:
            raise BadRowError(f"`answers[{index}]` is not {{answer, rank}}")
        texts.append(text)
        places.append(-fields.number(told["rank"], f"answers[{index}].rank"))
    rest = {key: value for key, value in row.items() if key != "answers"}
    return {**rest, "completions": texts, "ranks": list(fields.ranks_of(places))}


def without_markers(prompt: str) -> str:
    """A prompt of one turn without the marks of a transcript round it: "\\n\\nHuman: ...\\n\\nAssistant:"."""
    found = _TRANSCRIPT.match(prompt)
    return found[1].strip() if found is not None and "\n\nHuman:" not in found[1] else prompt


def common_beginning(chosen: str, rejected: str) -> tuple[str, str, str]:
    """The words two texts begin with, and what each goes on with. Raises BadRowError where there are none."""
    pairs = enumerate(zip(chosen, rejected, strict=False))
    length = next((i for i, (one, other) in pairs if one != other), min(len(chosen), len(rejected)))
    cut = max(chosen.rfind(" ", 0, length), chosen.rfind("\n", 0, length)) + 1
    if not chosen[:cut].strip():
        raise BadRowError(
            "`chosen` and `rejected` have no words in common at their beginning, which would be the prompt",
            "give the prompt a column of its own, `prompt`",
        )
    return chosen[:cut].strip(), chosen[cut:], rejected[cut:]


def refuse_unread(row: Mapping[str, Any]) -> None:
    """Raises BadRowError for a column that judges and that the row's shape does not read."""
    read = _READ if "completions" in row else frozenset()
    unread = [name for name in row if name.lower() in JUDGEMENTS and name.lower() not in read]
    if unread:
        raise BadRowError(
            f"it has `{unread[0]}`, which sounds like a judgement of the response, and nothing reads it",
            f"give a prompt several responses with `{unread[0]}` each, or chosen and rejected, or completions with "
            f"scores; or say that it means nothing with data.ignore=[{unread[0]}]",
        )

"""Our own format, for data of your own: one JSON object a line, of one of four shapes.

    {"prompt": "...", "response": "..."}                                     a demonstration
    {"prompt": "...", "completions": ["...", "..."], "ranks": [0, 1]}        a ranking; 0 is best, equal numbers tie
    {"text": "..."}                                                          a document, for pretraining and ptx
    {"prompt": "..."}                                                        a prompt alone, in data.prompts_path only

`prompt` is the user's turn; a conversation goes under `messages` instead: [{"role": "user", "content": "..."}, ...],
ending with the user. Optional: `id`, `task` (a family, for tables), `margins` (each completion's worth on the labeler's
scale) and `gold_scores` (its noise-free worth) beside `ranks`. A row may be demonstration and ranking at once.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.bad_rows import BadRows
from rlhf.data.files import Row, RowReader
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role
from rlhf.data.source import Records

_ROLES = {role.value: role for role in Role}


def read(rows: RowReader, bad_rows: BadRows, *, prompts_only: bool = False) -> Records:
    """prompts_only: rows need a prompt and nothing else, and give nothing else."""
    records = Records()
    for row in rows:
        try:
            _read_row(row, records, prompts_only)
        except _BadRowError as problem:
            bad_rows.add(row.where, str(problem))
    return records


class _BadRowError(Exception):
    """What is wrong with a row."""


def _read_row(row: Row, records: Records, prompts_only: bool) -> None:
    values = row.values
    if "text" in values and not prompts_only:
        records.texts.append(_text(values, "text"))
        return
    prompt = _prompt(row)
    demonstration = Demonstration(prompt, _text(values, "response")) if "response" in values else None
    ranking = _ranking(prompt, values) if "completions" in values else None
    if demonstration is None and ranking is None and not prompts_only:
        raise _BadRowError("it has a prompt but no response: neither `response` nor `completions`")
    records.prompts.append(prompt)
    if demonstration is not None and not prompts_only:
        records.demonstrations.append(demonstration)
    if ranking is not None and not prompts_only:
        records.rankings.append(ranking)


def _text(values: Mapping[str, Any], key: str) -> str:
    text = values.get(key)
    if not isinstance(text, str):
        raise _BadRowError(f"`{key}` is not text")
    if not text.strip():
        raise _BadRowError(f"`{key}` is empty or whitespace")
    return text.strip()


def _prompt(row: Row) -> Prompt:
    values = row.values
    if "messages" in values:
        messages = _messages(values["messages"])
    elif "prompt" in values:
        messages = (Message(Role.user, _text(values, "prompt")),)
    else:
        raise _BadRowError("it has none of `prompt`, `messages` and `text`")
    prompt_id = str(values.get("id", f"jsonl:{row.file}:{row.number}"))
    return Prompt(prompt_id, messages, str(values.get("task", "")))


def _messages(turns: Any) -> tuple[Message, ...]:
    if not isinstance(turns, list) or not turns:
        raise _BadRowError("`messages` is not a list of turns")
    messages = []
    for index, turn in enumerate(turns):
        if not isinstance(turn, Mapping) or turn.get("role") not in _ROLES or not isinstance(turn.get("content"), str):
            raise _BadRowError(f"`messages[{index}]` is not {{role, content}} with role {', '.join(_ROLES)}")
        messages.append(Message(_ROLES[turn["role"]], turn["content"].strip()))
    if messages[-1].role != Role.user:
        raise _BadRowError("`messages` does not end with the user's turn")
    return tuple(messages)


def _ranking(prompt: Prompt, values: Mapping[str, Any]) -> Ranking:
    completions = values["completions"]
    if not isinstance(completions, list) or not all(isinstance(text, str) for text in completions):
        raise _BadRowError("`completions` is not a list of texts")
    if len(completions) < 2:
        raise _BadRowError(f"a ranking needs 2 or more `completions`, and it has {len(completions)}")
    empty = next((i for i, text in enumerate(completions) if not text.strip()), None)
    if empty is not None:
        raise _BadRowError(f"`completions[{empty}]` is empty or whitespace")
    ranks = values.get("ranks")
    if not isinstance(ranks, list) or len(ranks) != len(completions) or not all(type(r) is int for r in ranks):
        raise _BadRowError(f"`ranks` is not a list of {len(completions)} whole numbers, one a completion")
    numbers = {}
    for key in ("margins", "gold_scores"):
        given = values.get(key) or []
        if not isinstance(given, list) or not all(isinstance(x, int | float) for x in given):
            raise _BadRowError(f"`{key}` is not a list of numbers")
        if given and len(given) != len(completions):
            raise _BadRowError(f"`{key}` has {len(given)} numbers for {len(completions)} completions")
        numbers[key] = tuple(float(x) for x in given)
    return Ranking(prompt, tuple(text.strip() for text in completions), tuple(ranks), **numbers)

"""What readers share: texts out of columns, turns into conversations, scores into ranks. All refuse with a sentence."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise
from typing import Any

from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role

END_TOKENS = ("<|endoftext|>", "</s>", "<|im_end|>", "<|eot_id|>", "<eos>")


def text(row: Mapping[str, Any], key: str) -> str:
    """The text under `key`, stripped. Raises BadRowError when there is none, or only whitespace."""
    value = row.get(key)
    if not isinstance(value, str):
        raise BadRowError(f"it has no text under `{key}`")
    if not value.strip():
        raise BadRowError(f"`{key}` is empty or whitespace")
    return value.strip()


def response(row: Mapping[str, Any], key: str) -> str:
    """The same of a response, whose first line keeps its indentation: it may be code."""
    stripped = text(row, key)
    first = row[key].lstrip("\r\n")
    indent = first[: len(first) - len(first.lstrip())]
    return f"{indent}{stripped}" if len(indent) > 1 or "\t" in indent else stripped


def optional_text(row: Mapping[str, Any], key: str) -> str:
    """The same, "" where the column is missing, null or blank. Raises BadRowError for what is no text."""
    value = row.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise BadRowError(f"`{key}` is not text")
    return value.strip()


def without_end_token(value: str) -> str:
    """A response without the end token that some files write out as text; it is added again in training."""
    value = value.rstrip()
    if "<s>" in value:  # a tag, which the end token's text closes
        return value
    while (end := next((token for token in END_TOKENS if value.endswith(token)), None)) is not None:
        value = value.removesuffix(end).rstrip()
    return value


def user_prompt(instruction: str, given: str = "", *, system: str = "", task: str = "") -> Prompt:
    """One user turn: the instruction, then on a paragraph of its own what it is to be applied to, if anything."""
    content = f"{instruction}\n\n{given}" if given else instruction
    opening = (Message(Role.system, system),) if system else ()
    return Prompt("", (*opening, Message(Role.user, content, input=given)), task)


def messages(turns: Any, roles: Mapping[str, Role], *, column: str, role_key: str, text_key: str) -> list[Message]:
    """Turns as messages, stripped. Raises BadRowError for a turn that is none, an unknown role, or an empty text."""
    if not isinstance(turns, Sequence) or isinstance(turns, str) or not turns:
        raise BadRowError(f"`{column}` is not a list of turns")
    read = []
    for index, turn in enumerate(turns):
        where = f"`{column}[{index}]`"
        if not isinstance(turn, Mapping) or not isinstance(turn.get(role_key), str):
            raise BadRowError(f"{where} is not {{{role_key}, {text_key}}}")
        if turn[role_key] not in roles:
            raise BadRowError(f"{where} has the {role_key} {turn[role_key][:40]!r}, none of {', '.join(roles)}")
        content = _parts(turn.get(text_key), where)
        if not isinstance(content, str):
            raise BadRowError(f"{where} has no text under `{text_key}`")
        if not content.strip():
            raise BadRowError(f"{where} is empty or whitespace")
        read.append(Message(roles[turn[role_key]], content.strip()))
    return read


def _parts(content: Any, where: str) -> Any:
    """Text that stands in parts, [{"type": "text", "text": ...}, ...], as one; anything else as it is."""
    if not isinstance(content, list) or not content or not all(isinstance(part, Mapping) for part in content):
        return content
    other = next((part.get("type") for part in content if part.get("type") != "text"), None)
    if other is not None:
        raise BadRowError(f"{where} has a part of type {str(other)[:40]!r}, and only text is read")
    return "".join(part["text"] for part in content if isinstance(part.get("text"), str))


def demonstration(turns: Sequence[Message], *, task: str = "", column: str) -> Demonstration:
    """A conversation that ends with the assistant: its last turn is the response.

    Raises BadRowError when it ends otherwise, holds no user turn before, or has two turns of one role in a row.
    """
    if len(turns) < 2 or turns[-1].role != Role.assistant:
        raise BadRowError(f"`{column}` does not end with the assistant's turn after a user's")
    return Demonstration(prompt(turns[:-1], task=task, column=column), turns[-1].content)


def prompt(turns: Sequence[Message], *, task: str = "", column: str) -> Prompt:
    """A conversation that ends with the user.

    Raises BadRowError when it does not, when two turns of one role follow each other, or a system turn is not first.
    """
    if not turns or turns[-1].role != Role.user:
        raise BadRowError(f"`{column}` does not end with the user's turn")
    for index, (before, after) in enumerate(pairwise(turns)):
        if before.role == after.role:
            raise BadRowError(f"`{column}[{index}]` and the next are both the {before.role.value}'s")
        if after.role == Role.system:
            raise BadRowError(f"`{column}[{index + 1}]` is a system turn, which only the first can be")
    return Prompt("", tuple(turns), task)


def number(value: Any, name: str) -> float:
    """A finite number. Raises BadRowError for anything else, true and false among it."""
    try:
        if not isinstance(value, bool) and isinstance(value, int | float) and math.isfinite(value):
            return float(value)
    except OverflowError:  # a whole number beyond what a float holds
        pass
    raise BadRowError(f"`{name}` is {str(value)[:40]!r}, not a number")


def ranks_of(scores: Sequence[float]) -> tuple[int, ...]:
    """Places from scores: the largest is 0, equal scores tie.

    >>> ranks_of([3.0, 5.0, 3.0, 1.0])
    (1, 0, 1, 2)
    """
    place = {score: rank for rank, score in enumerate(sorted(set(scores), reverse=True))}
    return tuple(place[score] for score in scores)


def ranking(asked: Prompt, completions: Sequence[str], ranks: Sequence[int], **numbers: tuple[float, ...]) -> Ranking:
    """Raises BadRowError for fewer than two completions, an empty one, or all alike."""
    if len(completions) < 2:
        raise BadRowError(f"a ranking needs 2 or more completions, and it has {len(completions)}")
    empty = next((i for i, completion in enumerate(completions) if not completion.strip()), None)
    if empty is not None:
        raise BadRowError(f"completion {empty} is empty or whitespace")
    stripped = tuple(completion.strip() for completion in completions)
    if len(set(stripped)) == 1:
        raise BadRowError("its completions are the same")
    return Ranking(asked, stripped, tuple(ranks), **numbers)

"""Turns of the chat dumps as one demonstration: where a conversation is taken to begin and to end."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import dropwhile, pairwise
from typing import Any

from rlhf.data.readers import fields
from rlhf.data.records import BadRowError, Demonstration, Message, Role

SHAREGPT_ROLES = {
    "system": Role.system,
    "human": Role.user,
    "user": Role.user,
    "gpt": Role.assistant,
    "assistant": Role.assistant,
    "chatgpt": Role.assistant,
    "bing": Role.assistant,
    "bard": Role.assistant,
}


def sharegpt_turns(row: Mapping[str, Any], column: str = "conversations") -> list[Message]:
    """Turns of {from, value}, from the first that is not the assistant's on; a blank system turn is left out.

    Dumps that cut long chats into pieces hold pieces that open with an answer to nothing; Vicuna skipped it too.
    Raises BadRowError for anything but such turns.
    """
    turns = row.get(column)
    if isinstance(turns, list) and turns and _is_blank_system(turns[0]):
        turns, column = turns[1:], f"{column}[1:]"
    read = fields.messages(turns, SHAREGPT_ROLES, column=column, role_key="from", text_key="value")
    system = read[:1] if read[0].role == Role.system else []
    return [*system, *dropwhile(lambda turn: turn.role == Role.assistant, read[len(system) :])]


def alternating(texts: Any, *, column: str) -> list[Message]:
    """A list of texts as turns, the user's first. Raises BadRowError for anything else."""
    if not isinstance(texts, list) or not texts:
        raise BadRowError(f"`{column}` is not a list of texts")
    turns = []
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRowError(f"`{column}[{index}]` is not text")
        if not text.strip():
            raise BadRowError(f"`{column}[{index}]` is empty or whitespace")
        turns.append(Message(Role.assistant if index % 2 else Role.user, text.strip()))
    return turns


def up_to_last_reply(turns: Sequence[Message], *, column: str, task: str = "", prompt_id: str = "") -> Demonstration:
    """The conversation as far as the assistant's last turn, which is the response; what the user said after is dropped.

    Raises BadRowError when the assistant has no turn, or two turns of one role follow each other.
    """
    last = max((index for index, turn in enumerate(turns) if turn.role == Role.assistant), default=None)
    if last is None:
        raise BadRowError(f"`{column}` has no turn of the assistant that answers a user's")
    twice = next((turn.role for turn, after in pairwise(turns[: last + 1]) if turn.role == after.role), None)
    if twice is not None:
        raise BadRowError(f"`{column}` has two turns of the {twice.value}'s in a row")
    read = fields.demonstration(turns[: last + 1], task=task, column=column)
    return replace(read, prompt=replace(read.prompt, id=prompt_id))


def own_id(source: str, row: Mapping[str, Any], key: str) -> str:
    """An id from the row's own, "" where it has none."""
    value = row.get(key)
    return f"{source}:{value}" if isinstance(value, str) and value else ""


def _is_blank_system(turn: Any) -> bool:
    if not isinstance(turn, Mapping) or turn.get("from") != "system":
        return False
    value = turn.get("value")
    return isinstance(value, str) and not value.strip()

"""OpenAssistant's message trees, with the ranks volunteers gave (Köpf et al. 2023, arXiv:2304.07327).

Source: OpenAssistant/oasst1 and oasst2 on the hub (Apache-2.0). oasst1: 84,437 messages for training and 4,401 for
validation, the good part of 161,443 messages in 66,497 trees. Three shapes are read:

- a tree a row, as in *.trees.jsonl.gz: `message_tree_id`, `tree_state`, `prompt`, a message whose `replies` are
  messages. A message has `message_id`, `text`, `role` (prompter or assistant), and perhaps `rank` among its siblings
  (0 is best), `deleted`, `review_result`, `user_id`;
- a message a row, as the hub's tables: the same, with `parent_id`;
- Open-Assistant's test list: `user_message_id`, `parent_message_id`, `text`, `role`.

Messages are gathered into trees first. Deleted messages and those that failed review are left out with all below them.

Rankings: all replies with a rank to one message, two or more of them, wherever in the tree; ties stay. Siblings of
the very same words rank nothing.

Demonstrations: every assistant reply for which it and each assistant reply above it is the best-ranked of its siblings;
siblings without ranks all count, as no one preferred any. Open-Assistant's SFT also kept to best-ranked replies, with
one conversation a leaf and the loss on all its assistant turns. Here each reply is a response of its own, so that with
the loss on the last turn all of them are learnt, and no shared beginning twice. A tree without any reply gives its
first message as a prompt. The user of all prompts in a tree is who began it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any

from rlhf.data.files import Row
from rlhf.data.readers.fields import ranking, ranks_of
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role

_ROLES = {"prompter": Role.user, "assistant": Role.assistant}
_STOPPED = ("aborted_low_grade", "halted_by_moderator")


def gather(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows that are messages, as one row a tree, where its first message stood; all other rows as they are.

    What hangs from a message that is not there, or from itself, comes out as a tree whose first message has a parent:
    `read` refuses it. Every message is in exactly one tree.
    """
    messages = _Messages()
    for row in rows:
        if not messages.take(row):
            yield row
    yield from messages.trees()


_KEYS = ("message_id", "parent_id")


class _Messages:
    """Flat messages, linked to the message that each one answers."""

    def __init__(self) -> None:
        self._held: list[tuple[Row, dict[str, Any]]] = []

    def take(self, row: Row) -> bool:
        """Whether the row is a message; if so, it is kept."""
        values = row.values
        own, parent = ("user_message_id", "parent_message_id") if "user_message_id" in values else _KEYS
        if "prompt" in values or not _is_id(values.get(own)):
            return False
        if values.get(parent) is not None and not isinstance(values[parent], str):
            return False
        ids = {"message_id": values[own], "parent_id": values.get(parent) or None}
        self._held.append((row, {**values, **ids, "replies": []}))
        return True

    def trees(self) -> Iterator[Row]:
        by_id: dict[str, dict[str, Any]] = {}
        for _, message in self._held:
            by_id.setdefault(message["message_id"], message)
        rows = {id(message): row for row, message in self._held}
        firsts = []
        for _, message in self._held:
            parent = by_id.get(message["parent_id"])
            if parent is None or parent is message:
                firsts.append(message)
            else:
                parent["replies"].append(message)
        placed: set[int] = set()
        for first in firsts:
            yield _as_tree(rows[id(first)], first, placed)
        for _, message in self._held:
            if id(message) not in placed:
                first = _cut_circle(message, by_id)
                yield _as_tree(rows[id(first)], first, placed)


def _is_id(value: Any) -> bool:
    return isinstance(value, str) and bool(value)


def _cut_circle(message: dict[str, Any], by_id: Mapping[str, dict[str, Any]]) -> dict[str, Any]:
    """A message of the circle that `message` hangs from, taken out of its parent's replies."""
    passed = set()
    while id(message) not in passed:
        passed.add(id(message))
        message = by_id[message["parent_id"]]
    parent = by_id[message["parent_id"]]
    parent["replies"] = [reply for reply in parent["replies"] if reply is not message]
    return message


def _as_tree(row: Row, first: dict[str, Any], placed: set[int]) -> Row:
    size, waiting = 0, [first]
    while waiting:
        message = waiting.pop()
        placed.add(id(message))
        size += 1
        waiting += message["replies"]
    tree_id = first.get("message_tree_id") or first["message_id"]
    tree = {"message_tree_id": tree_id, "tree_state": first.get("tree_state"), "prompt": first}
    return replace(row, values=tree, merged=size)


@dataclass(frozen=True)
class _Place:
    """A message in its tree."""

    message: Mapping[str, Any]
    turns: tuple[Message, ...]  # from the first message to this one
    best: bool  # whether no assistant reply on the way, this one included, is outranked


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking | Prompt]:
    """Demonstrations and rankings of a tree, or its first message as a prompt. Raises BadRowError."""
    first = row.get("prompt")
    if not isinstance(first, Mapping):
        raise BadRowError("it is no message tree: it has no message under `prompt`")
    _require_usable(row, first)
    records: list[Demonstration | Ranking | Prompt] = []
    user = first.get("user_id")
    user = user if isinstance(user, str) else ""
    opening = _Place(first, (_turn(first, None),), best=True)
    waiting = [opening]
    while waiting:
        place = waiting.pop()
        replies = [_reply(place, message) for message in _replies(place.message) if _is_usable(message)]
        if replies and place.turns[-1].role == Role.user:
            replies = _with_best(replies)
            prompt = _prompt(place, user)
            records += [Demonstration(prompt, reply.turns[-1].content) for reply in replies if reply.best]
            records += _ranking(prompt, replies)
        waiting += reversed(replies)
    return records or [_prompt(opening, user)]


def _require_usable(row: Mapping[str, Any], first: Mapping[str, Any]) -> None:
    if row.get("tree_state") in _STOPPED:
        raise BadRowError(f"its `tree_state` is {row['tree_state']}")
    ids = _ids(first)
    if len(ids) > len(set(ids)):
        twice, _ = Counter(ids).most_common(1)[0]
        raise BadRowError(f"two of its messages have the id {twice[:40]!r}")
    parent = first.get("parent_id")
    if isinstance(parent, str) and parent:
        missing = "is one of its own replies" if parent in ids else "is nowhere in the file"
        raise BadRowError(f"{_name(first)} answers {parent[:40]!r}, which {missing}")
    if not _is_usable(first):
        raise BadRowError(f"{_name(first)}, the first of its tree, is deleted or failed review")


def _ids(first: Mapping[str, Any]) -> list[str]:
    ids: list[str] = []
    waiting = [first]
    while waiting:
        message = waiting.pop()
        if _is_id(message.get("message_id")):
            ids.append(message["message_id"])
        waiting += _replies(message)
    return ids


def _replies(message: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    replies = message.get("replies")
    if replies is None:
        return []
    if not isinstance(replies, list) or not all(isinstance(reply, Mapping) for reply in replies):
        raise BadRowError(f"`replies` of {_name(message)} is not a list of messages")
    return replies


def _is_usable(message: Mapping[str, Any]) -> bool:
    return message.get("deleted") is not True and message.get("review_result") is not False


def _turn(message: Mapping[str, Any], before: Role | None) -> Message:
    role, text = message.get("role"), message.get("text")
    if not isinstance(role, str) or role not in _ROLES:
        raise BadRowError(f"`role` of {_name(message)} is neither prompter nor assistant")
    if before is None and role == "assistant":
        raise BadRowError(f"{_name(message)}, the first of its tree, is the assistant's")
    if _ROLES[role] == before:
        raise BadRowError(f"{_name(message)} and the one that it answers are both the {role}'s")
    if not isinstance(text, str) or not text.strip():
        raise BadRowError(f"{_name(message)} has no text")
    return Message(_ROLES[role], text.strip())


def _reply(place: _Place, message: Mapping[str, Any]) -> _Place:
    return _Place(message, (*place.turns, _turn(message, place.turns[-1].role)), place.best)


def _with_best(replies: list[_Place]) -> list[_Place]:
    """The assistant's replies to one message; only the best-ranked stays best, the first of several."""
    ranked = [(rank, index) for index, reply in enumerate(replies) if (rank := _rank(reply.message)) is not None]
    if not ranked:
        return replies
    _, best = min(ranked)
    return [replace(reply, best=reply.best and index == best) for index, reply in enumerate(replies)]


def _ranking(prompt: Prompt, replies: list[_Place]) -> list[Ranking]:
    ranked = [(reply.turns[-1].content, rank) for reply in replies if (rank := _rank(reply.message)) is not None]
    completions = [content for content, _ in ranked]
    if len(set(completions)) < 2:
        return []
    return [ranking(prompt, completions, ranks_of([-rank for _, rank in ranked]))]


def _rank(message: Mapping[str, Any]) -> int | None:
    rank = message.get("rank")
    if rank is None:
        return None
    if isinstance(rank, float) and rank.is_integer():  # as tables with gaps write whole numbers
        return int(rank)
    if isinstance(rank, bool) or not isinstance(rank, int):
        raise BadRowError(f"`rank` of {_name(message)} is not a whole number")
    return rank


def _prompt(place: _Place, user: str) -> Prompt:
    message_id = place.message.get("message_id")
    return Prompt(f"openassistant:{message_id}" if _is_id(message_id) else "", place.turns, user=user)


def _name(message: Mapping[str, Any]) -> str:
    message_id = message.get("message_id")
    return f"message {message_id[:40]!r}" if isinstance(message_id, str) and message_id else "a message without an id"

"""Records as JSON values and back."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role, Split

KINDS: tuple[type[Record], ...] = (Demonstration, Ranking, Prompt, Document)


def to_values(record: Record) -> dict[str, Any]:
    """JSON values that `from_values` makes the same record of."""
    if isinstance(record, Prompt):
        return _prompt_values(record)
    if isinstance(record, Document):
        return {"text": record.text}
    if isinstance(record, Demonstration):
        return {"prompt": _prompt_values(record.prompt), "response": record.response}
    values: dict[str, Any] = {"prompt": _prompt_values(record.prompt), "completions": list(record.completions)}
    return values | {key: list(getattr(record, key)) for key in ("ranks", "margins", "gold_scores")}


def from_values(kind: type[Record], values: Mapping[str, Any]) -> Any:
    if kind is Prompt:
        return _prompt(values)
    if kind is Document:
        return Document(values["text"])
    if kind is Demonstration:
        return Demonstration(_prompt(values["prompt"]), values["response"])
    numbers = {key: tuple(values[key]) for key in ("completions", "ranks", "margins", "gold_scores")}
    return Ranking(_prompt(values["prompt"]), **numbers)


def _prompt_values(prompt: Prompt) -> dict[str, Any]:
    messages = [[m.role.value, m.content, m.input] if m.input else [m.role.value, m.content] for m in prompt.messages]
    values: dict[str, Any] = {"id": prompt.id, "messages": messages}
    for key in ("task", "details", "user"):
        if value := getattr(prompt, key):
            values[key] = value
    if prompt.split is not None:
        values["split"] = prompt.split.value
    return values


def _prompt(values: Mapping[str, Any]) -> Prompt:
    return Prompt(
        values["id"],
        tuple(Message(Role(role), *rest) for role, *rest in values["messages"]),
        values.get("task", ""),
        values.get("details", {}),
        values.get("user", ""),
        Split(values["split"]) if "split" in values else None,
    )

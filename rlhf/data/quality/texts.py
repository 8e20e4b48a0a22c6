"""What of a record is read: its turns and its responses, and the same without case and spacing."""

from __future__ import annotations

from collections.abc import Iterable
from typing import assert_never

import xxhash

from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role, prompt_of


def turns(record: Record) -> tuple[Message, ...]:
    """The conversation before the response; none for a document."""
    prompt = prompt_of(record)
    return prompt.messages if prompt is not None else ()


def spoken(record: Record) -> list[str]:
    """The conversation's turns without the system's, which says the same to thousands of records."""
    return [turn.content for turn in turns(record) if turn.role != Role.system]


def responses(record: Record) -> tuple[str, ...]:
    """What a model learns to write; a ranking's from best to worst, whatever their order. None for a prompt alone."""
    match record:
        case Prompt():
            return ()
        case Demonstration():
            return (record.response,)
        case Ranking():
            return tuple(text for _, text in sorted(zip(record.ranks, record.completions, strict=True)))
        case Document():
            return (record.text,)
    assert_never(record)


def squeezed(text: str) -> str:
    """Case folded, each run of white space one space."""
    return " ".join(text.casefold().split())


def fingerprint(parts: Iterable[str]) -> int:
    """64 bits of the parts, which hold no record separator once squeezed (it is white space)."""
    # Lone surrogates come out of JSON's \ud800 and have no UTF-8.
    return xxhash.xxh3_64_intdigest("\x1e".join(parts).encode("utf-8", "surrogatepass"))


def conversation_key(record: Record) -> int:
    """Equal for records of one conversation, case and spaces aside; 0 for a document."""
    said = turns(record)
    return fingerprint(part for turn in said for part in (turn.role.value, squeezed(turn.content))) if said else 0

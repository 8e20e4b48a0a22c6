"""Responses that are too short or too long, in words."""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import responses
from rlhf.data.quality.words import words


def lengths(records: Survivors, least: int, most: int | None) -> Iterator[Found]:
    """Records with a response of fewer than `least` words or more than `most`; of a document, its text is one."""
    for place, record in records:
        counts = [len(words(text)) for text in responses(record)]
        if not counts:
            continue
        if min(counts) < least:
            reason = f"a response has {min(counts)} words, fewer than data.quality.min_response_words={least}"
            yield Found(place, reason)
        elif most is not None and max(counts) > most:
            reason = f"a response has {max(counts)} words, more than data.quality.max_response_words={most}"
            yield Found(place, reason)

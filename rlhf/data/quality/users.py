"""A cap on the prompts of one user; InstructGPT's was 200 (arXiv:2203.02155, section 3.2)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import conversation_key, fingerprint
from rlhf.data.records import prompt_of


def users(records: Survivors, most: int) -> Iterator[Found]:
    """Records of a user's prompts after the first `most` different ones; all records of one prompt count once.

    A prompt that names no user is under no cap.
    """
    counts: Counter[str] = Counter()
    seen: set[int] = set()
    for place, record in records:
        prompt = prompt_of(record)
        if prompt is None or not prompt.user:
            continue
        key = fingerprint([prompt.user, str(conversation_key(record))])
        if key in seen:
            continue
        if counts[prompt.user] == most:
            yield Found(place, f"its user has {most} earlier prompts (data.quality.max_prompts_per_user={most})")
        else:
            counts[prompt.user] += 1
            seen.add(key)

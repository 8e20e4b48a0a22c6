"""Prompts that begin as an earlier one does, which InstructGPT took for one prompt sent several times over.

arXiv:2203.02155, section 3.2: prompts that share a long common prefix are deduplicated; the length is not given.
"""

from __future__ import annotations

from collections.abc import Iterator

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import conversation_key, fingerprint, spoken, squeezed


def common_prefixes(records: Survivors, characters: int) -> Iterator[Found]:
    """Records whose conversation shares its first `characters` with an earlier, different conversation that stays.

    The text is that of all turns but the system's, from the first on, case folded and spaces collapsed: a chat that was
    sent again with one more turn counts, a common system turn does not. A shorter text has no such prefix and stays.
    Records of one and the same conversation stay or go together, so several demonstrations of a prompt are kept.
    """
    owners: dict[int, tuple[int, int]] = {}  # prefix -> the first conversation that has it, and where that stands
    for place, record in records:
        text = squeezed("\n".join(spoken(record)))
        if len(text) < characters:
            continue
        conversation = conversation_key(record)
        owner, first = owners.setdefault(fingerprint([text[:characters]]), (conversation, place))
        if owner != conversation:
            yield Found(place, f"its prompt shares its first {characters} characters with that of {{other}}", first)

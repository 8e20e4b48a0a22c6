"""Records that say what an earlier one of their kind said, case and spaces aside."""

from __future__ import annotations

from array import array
from collections.abc import Iterator

import numpy as np

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import conversation_key, fingerprint, squeezed
from rlhf.data.records import Demonstration, Document, Prompt, Ranking, Record


def duplicates(records: Survivors) -> Iterator[Found]:
    """All but the first of records with equal conversation and responses; rankings are equal in any order of theirs.

    A prompt alone, a demonstration and a ranking of one prompt are of different kinds and no duplicates.
    """
    places, keys = array("q"), array("Q")
    for place, record in records:
        places.append(place)
        keys.append(_key(record))
    _, first, group = np.unique(np.array(keys, dtype=np.uint64), return_index=True, return_inverse=True)
    original = first[group]
    for later in np.flatnonzero(original != np.arange(len(original))):
        yield Found(places[later], "it repeats {other}, case and spaces aside", places[original[later]])


def _key(record: Record) -> int:
    return fingerprint((str(conversation_key(record)), *_answers(record)))


def _answers(record: Record) -> list[str]:
    match record:
        case Prompt():
            return []
        case Demonstration(response=text) | Document(text=text):
            return [squeezed(text)]
        case Ranking():
            pairs = zip(record.completions, record.ranks, strict=True)
            return [part for text, rank in sorted((squeezed(t), r) for t, r in pairs) for part in (text, str(rank))]

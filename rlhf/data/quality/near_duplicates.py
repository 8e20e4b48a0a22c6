"""Records that share most word 5-grams with an earlier one of their kind, found by MinHash LSH.

MinHash (Broder 1997) estimates the Jaccard similarity of two sets from how many of their minima under random
permutations agree; LSH (Leskovec, Rajaraman, Ullman: Mining of Massive Datasets, chapter 3) compares only records whose
minima agree throughout one of several bands. datasketch computes the minima and chooses the bands. Its MinHashLSH keeps
each band's buckets as Python objects, several gigabytes for a million records; here they are sorted arrays.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rlhf.data.quality.libraries import library
from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import conversation_key, fingerprint, responses, turns
from rlhf.data.quality.words import Hashes, mixed, run_hashes, word_hashes
from rlhf.data.records import Demonstration, Ranking, Record

SHINGLE_WORDS = 5
PERMUTATIONS = 128  # the estimate's standard error is at most 0.044
SEED = 1
# Shares of false positives and false negatives in the choice of bands: every candidate is checked, so a false positive
# costs a comparison and a false negative a near duplicate.
WEIGHTS = (0.05, 0.95)
MOST_BANDS_THRESHOLD = 0.95  # above, one band of all minima would be best, and miss much

Signatures = npt.NDArray[np.uint32]  # (records, PERMUTATIONS)


def near_duplicates(records: Survivors, threshold: float) -> Iterator[Found]:
    """Records whose estimated similarity with an earlier one that stays is `threshold` or more.

    Compared are sets of 5 words in a row of conversation and responses together; of a text below 5 words, its words.
    Demonstrations and rankings of one and the same conversation must be as similar in their responses alone: a second
    answer to a long question is no duplicate of the first. A record without words stays.
    Raises UserError when datasketch is missing.
    """
    signed = _sign(records)
    buckets = _shared_buckets(signed, threshold)
    shared = np.flatnonzero((buckets >= 0).any(axis=1))
    answers = _response_signatures(records, signed, shared)
    kept: dict[int, list[int]] = {}  # rows that stay, by bucket
    for row in shared.tolist():
        mine = [bucket for bucket in buckets[row].tolist() if bucket >= 0]
        earlier = sorted({other for bucket in mine for other in kept.get(bucket, ())})
        match = _first_alike(row, earlier, signed, answers, threshold)
        if match is None:
            for bucket in mine:
                kept.setdefault(bucket, []).append(row)
        else:
            other, similarity = match
            reason = f"it is a near duplicate of {{other}}: about {similarity:.0%} of their word 5-grams are the same"
            yield Found(signed.places[row], reason, signed.places[other])


@dataclass(frozen=True)
class _Signed:
    """Rows are records that have words, in order."""

    signatures: Signatures
    places: array[int]
    kinds: Hashes
    conversations: Hashes  # 0 where the record has no responses beside a conversation


def _sign(records: Survivors) -> _Signed:
    places, kinds, conversations = array("q"), array("Q"), array("Q")

    def shingled() -> Iterator[list[int]]:
        for place, record in records:
            shingles = _shingles([*(turn.content for turn in turns(record)), *responses(record)])
            if shingles:
                places.append(place)
                kinds.append(fingerprint([type(record).__name__]))
                conversations.append(conversation_key(record) if _answers(record) else 0)
                yield shingles

    signatures = _signatures(shingled())
    return _Signed(signatures, places, np.array(kinds, dtype=np.uint64), np.array(conversations, dtype=np.uint64))


def _answers(record: Record) -> bool:
    return isinstance(record, Demonstration | Ranking)


def _shingles(texts: Iterable[str]) -> list[int]:
    """32-bit hashes of runs of words; empty where there are no words."""
    hashes = word_hashes(" ".join(texts))
    runs = run_hashes(hashes, [SHINGLE_WORDS]) if len(hashes) >= SHINGLE_WORDS else hashes
    return (runs >> np.uint64(32)).tolist()


def _signatures(shingled: Iterable[list[int]]) -> Signatures:
    minhash: Any = library("datasketch", "near_duplicates").MinHash
    rows = bytearray()
    for signature in minhash.generator(shingled, num_perm=PERMUTATIONS, seed=SEED, hashfunc=int, scheme="affine32"):
        rows += signature.hashvalues.tobytes()
    return np.frombuffer(rows, dtype=np.uint32).reshape(-1, PERMUTATIONS)


def _shared_buckets(signed: _Signed, threshold: float) -> npt.NDArray[np.int64]:
    """(rows, bands): the number of the bucket that a row shares with others of its kind, -1 where it is alone there."""
    lsh: Any = library("datasketch", "near_duplicates").MinHashLSH
    bands = lsh(threshold=min(threshold, MOST_BANDS_THRESHOLD), num_perm=PERMUTATIONS, weights=WEIGHTS).hashranges
    buckets = np.full((len(signed.places), len(bands)), -1, dtype=np.int64)
    count = 0
    for band, (start, end) in enumerate(bands):
        keys = signed.kinds
        for column in range(start, end):
            keys = mixed(keys + signed.signatures[:, column])
        _, group, sizes = np.unique(keys, return_inverse=True, return_counts=True)
        shared = sizes[group] > 1
        buckets[shared, band] = count + group[shared]
        count += len(sizes)
    return buckets


def _response_signatures(records: Survivors, signed: _Signed, shared: npt.NDArray[np.intp]) -> dict[int, Signatures]:
    """Of the responses alone, by row, for those among `shared` whose conversation another of them has, too."""
    conversations = signed.conversations[shared]
    _, group, sizes = np.unique(conversations, return_inverse=True, return_counts=True)
    wanted = {signed.places[row]: row for row in shared[(conversations != 0) & (sizes[group] > 1)].tolist()}
    if not wanted:
        return {}
    rows: list[int] = []

    def shingled() -> Iterator[list[int]]:
        for place, record in records:
            if place in wanted and (shingles := _shingles(responses(record))):
                rows.append(wanted[place])
                yield shingles

    signatures = _signatures(shingled())  # fills rows
    return dict(zip(rows, signatures, strict=True))


def _first_alike(
    row: int, earlier: list[int], signed: _Signed, answers: dict[int, Signatures], threshold: float
) -> tuple[int, float] | None:
    """The first of the earlier rows that this one is a near duplicate of, and how similar they are."""
    if not earlier:
        return None
    similarities = (signed.signatures[earlier] == signed.signatures[row]).mean(axis=1)
    for index in np.flatnonzero(similarities >= threshold).tolist():
        other, similarity = earlier[index], float(similarities[index])
        if signed.conversations[row] == signed.conversations[other] != 0:
            if row not in answers or other not in answers:
                continue
            similarity = float((answers[row] == answers[other]).mean())
        if similarity >= threshold:
            return other, similarity
    return None

"""Training records that give away a held-out prompt: they share so many words in a row with it.

GPT-3 looked for 13 (arXiv:2005.14165, appendix C) and cut the piece out; here the whole record goes. Held-out records
never do. A template around the prompts of both splits is shared words like any other.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rlhf.data.quality.survivors import Found, Survivors
from rlhf.data.quality.texts import responses, spoken
from rlhf.data.quality.words import Hashes, run_hashes, word_hashes
from rlhf.data.records import Document, Record

FEWEST_WORDS = 5  # of a held-out prompt that is shorter than a run and looked for as a whole


def contaminated(records: Survivors, held_out: Sequence[bool] | npt.NDArray[np.bool_], words: int) -> Iterator[Found]:
    """Training records that share `words` words in a row with a held-out record's prompt (a document's text).

    Searched are a training record's turns and responses, without system turns. A held-out prompt of fewer words counts
    when all of it is there in a row, if it has 5 words or more.
    """
    index = _index(records, held_out, words)
    if index is None:
        return
    for place, record in records:
        if held_out[place]:
            continue
        match = index.first(run_hashes(word_hashes(" ".join((*spoken(record), *responses(record)))), index.lengths))
        if match is not None:
            other, length = match
            yield Found(place, f"it shares {length} words in a row with {{other}}, which is held out", other)


@dataclass(frozen=True)
class _Index:
    """Runs of words of held-out prompts, by hash."""

    runs: Hashes  # sorted
    owners: npt.NDArray[np.int64]
    run_lengths: npt.NDArray[np.int16]
    lengths: frozenset[int]
    present: npt.NDArray[np.bool_]  # by the first bits of a hash, whether any run has them
    shift: np.uint64

    def first(self, runs: Hashes) -> tuple[int, int] | None:
        """The record that owns the first of these runs that is there, and the run's words; None when none is."""
        runs = runs[self.present[runs >> self.shift]]  # most are not, and the search takes longer
        at = np.minimum(np.searchsorted(self.runs, runs), len(self.runs) - 1)
        found = at[self.runs[at] == runs]
        return (int(self.owners[found[0]]), int(self.run_lengths[found[0]])) if len(found) else None


def _index(records: Survivors, held_out: Sequence[bool] | npt.NDArray[np.bool_], words: int) -> _Index | None:
    """None when no held-out record has words enough."""
    runs, owners, lengths = [], [], []
    for place, record in records:
        if held_out[place]:
            hashes = word_hashes(_asked(record))
            length = min(words, len(hashes))
            if length == words or length >= FEWEST_WORDS:
                runs.append(np.unique(run_hashes(hashes, [length])))
                owners.append(np.full(len(runs[-1]), place))
                lengths.append(np.full(len(runs[-1]), length, dtype=np.int16))
    if not runs:
        return None
    every = np.concatenate(runs)
    unique, first = np.unique(every, return_index=True)
    run_lengths = np.concatenate(lengths)[first]
    bits = len(unique).bit_length() + 3  # one place in eight or fewer is taken
    shift = np.uint64(64 - bits)
    present = np.zeros(1 << bits, dtype=np.bool_)
    present[unique >> shift] = True
    return _Index(
        unique, np.concatenate(owners)[first], run_lengths, frozenset(np.unique(run_lengths).tolist()), present, shift
    )


def _asked(record: Record) -> str:
    return record.text if isinstance(record, Document) else " ".join(spoken(record))

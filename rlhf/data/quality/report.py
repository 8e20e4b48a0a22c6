"""Counts that a look at the data shows whatever data.quality says."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from rlhf.data.quality.contamination import contaminated
from rlhf.data.quality.duplicates import duplicates
from rlhf.data.quality.near_duplicates import near_duplicates
from rlhf.data.quality.survivors import Survivors
from rlhf.data.records import Record

NEAR = 0.8  # Jaccard similarity of word 5-grams
EXAMPLES = 5  # of each kind


class Duplicates(NamedTuple):
    exact: int  # records that data.quality.duplicates would leave out
    near: int  # of the others, those that data.quality.near_duplicates=0.8 would
    examples: list[str]  # sentences, the first few of each


def duplicates_of(records: Iterable[Record]) -> Duplicates:
    """How many records repeat an earlier one, to the word or nearly. Raises UserError when datasketch is missing."""
    survivors = Survivors(records)
    survivors.leave_out(duplicates(survivors))
    exact = sorted(survivors.left_out)
    survivors.leave_out(near_duplicates(survivors, NEAR))
    near = sorted(survivors.left_out.keys() - exact)
    reasons = survivors.reasons()
    examples = [f"record {place + 1}: {reasons[place]}" for place in (*exact[:EXAMPLES], *near[:EXAMPLES])]
    return Duplicates(len(exact), len(near), examples)


def leakage(records: Iterable[Record], held_out: Sequence[bool] | npt.NDArray[np.bool_], words: int = 13) -> int:
    """How many training records share so many words in a row with a held-out prompt."""
    return sum(1 for _ in contaminated(Survivors(records), held_out, words))

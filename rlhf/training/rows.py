"""Rows in the order that a trainer takes them: of like length side by side, and as many on every rank."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from torch.utils.data import Dataset, Sampler

if TYPE_CHECKING:
    pass


_BATCHES_TO_SORT = 50  # rows are sorted by length among this many random batches


class BucketSampler(Sampler[int]):
    """Row indices such that batches hold rows of like length, in random order, new each epoch.

    Rows are shuffled, sorted by length within stretches of 50 batches, cut into batches, and the batches shuffled: no
    long stretch of training sees only short rows. A function of seed and epoch alone, so that a resumed run repeats it.
    filled: the last batch is whole too, with the index of a row that `FilledRows` has.
    """

    def __init__(
        self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], float], *, filled: bool = False
    ) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch
        self._fill = -len(lengths) % batch_size if filled else 0

    def __len__(self) -> int:
        return len(self._lengths) + self._fill

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}:{math.floor(self._epoch() + 1e-6)}")
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        stretch = self._batch_size * _BATCHES_TO_SORT
        batches = []
        for start in range(0, len(order), stretch):
            rows = sorted(order[start : start + stretch], key=lambda row: self._lengths[row])
            batches += [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
        # A short batch anywhere but at the end would shift every later batch across its neighbours' lengths.
        short = [batch for batch in batches if len(batch) < self._batch_size]
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        rng.shuffle(whole)
        fill = [len(self._lengths)] * self._fill
        return iter([row for batch in whole + short for row in batch] + fill)


class FilledRows(Dataset[Any]):
    """Rows, and behind the last one a row that counts for nothing, with which several ranks fill up a last batch.

    Accelerate would fill it with rows that count twice.
    """

    def __init__(self, rows: Any, blank: Any) -> None:
        self._rows = rows
        self._blank = blank

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> Any:
        return self._rows[index] if index < len(self._rows) else self._blank

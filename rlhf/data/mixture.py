"""Several data sources as one, each with a share of the records.

A part's rate is its weight times 1 (sampling=weights), times min(records, cap) (proportional, Raffel et al. 2020,
arXiv:1910.10683, which FLAN took with a cap of 3,000 rows, arXiv:2109.01652), or times that number to the power
1 / temperature. Its share of the mixture is its rate over the sum of all rates. rlhf/data/mixture_file.py reads the
file that names the parts.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from fractions import Fraction
from typing import Any, Generic, TypeVar, cast, overload

import numpy as np

from rlhf.config import DataSourceName, MixtureConfig, Sampling
from rlhf.data.records import DataSource, Demonstration, NeedsSamplerError, Prompt, Ranking, Sampler, Split, no_sampler
from rlhf.data.store import StoredRecords, key_of, place_of
from rlhf.errors import UserError

T = TypeVar("T")

KINDS = ("demonstrations", "rankings", "prompts", "texts")
_AT_ONCE = 1000  # records fetched in one go


def rates(available: Sequence[int], weights: Sequence[float], config: MixtureConfig) -> list[Fraction]:
    """Each part's share of the mixture, from its records and its weight; they sum to 1."""
    capped = [min(count, config.cap) for count in available]
    bases = {
        Sampling.weights: [Fraction(1)] * len(capped),
        Sampling.proportional: [Fraction(count) for count in capped],
        Sampling.temperature: [Fraction(count ** (1 / config.temperature)) for count in capped],
    }[config.sampling]
    raw = [Fraction(weight) * base for weight, base in zip(weights, bases, strict=True)]
    return [rate / sum(raw) for rate in raw]


def largest(available: Sequence[int], shares: Sequence[Fraction]) -> int:
    """Records of the largest mixture in which no part gives more than it has: min over parts of available / share."""
    return min(math.floor(count / share) for count, share in zip(available, shares, strict=True))


def apportion(rows: int, shares: Sequence[Fraction]) -> list[int]:
    """Whole numbers in the proportions of `shares` that sum to `rows`, by largest remainder; ties to the earlier."""
    quotas = [rows * share for share in shares]
    counts = [math.floor(quota) for quota in quotas]
    by_remainder = sorted(range(len(shares)), key=lambda part: counts[part] - quotas[part])
    for part in by_remainder[: rows - sum(counts)]:
        counts[part] += 1
    return counts


class Picked(Sequence[T], Generic[T]):
    """Records of several sequences, each fetched from its part when it is asked for."""

    def __init__(
        self, parts: Sequence[Sequence[T]], of_part: np.ndarray, of_record: np.ndarray, see: Callable[[int, T], T]
    ):
        self.parts = parts
        self.of_part = of_part  # (records,) int32: which of `parts`
        self.of_record = of_record  # (records,) int64: which record of it
        self.see = see  # what becomes of a record of a part

    def __len__(self) -> int:
        return len(self.of_part)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> Picked[T]: ...
    def __getitem__(self, index: int | slice) -> T | Picked[T]:
        if isinstance(index, slice):
            return Picked(self.parts, self.of_part[index], self.of_record[index], self.see)
        part = int(self.of_part[index])
        return self.see(part, self.parts[part][int(self.of_record[index])])

    @property
    def fingerprint(self) -> str:
        """Of the parts and the choice among them, for what is computed from it. AttributeError for parts in memory."""
        digest = hashlib.sha256(self.of_part.tobytes() + self.of_record.tobytes())
        return ":".join([digest.hexdigest(), *(part.fingerprint for part in cast(Any, self.parts))])

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _AT_ONCE):
            of_part, of_record = self.of_part[start : start + _AT_ONCE], self.of_record[start : start + _AT_ONCE]
            waiting = {
                int(part): iter(_fetched(self.parts[part], of_record[of_part == part])) for part in np.unique(of_part)
            }
            for part in of_part.tolist():
                yield self.see(part, next(waiting[part]))


def _fetched(records: Sequence[T], indices: np.ndarray) -> Sequence[T]:
    """Several records, read together where they lie on disk."""
    if isinstance(records, StoredRecords):
        return list(records.store.pick(records.indices[indices], records.view))
    return [records[index] for index in indices.tolist()]


@dataclass(frozen=True)
class _Pool:
    """What a part may give of one kind: `indices` into its records, in the order in which they are taken."""

    name: str
    weight: float
    records: Sequence[Any]
    indices: np.ndarray

    def take(self, count: int) -> np.ndarray:
        """The first `count`, from the start again where there are no more."""
        return np.resize(self.indices, count)


class MixtureSource:
    """Records of named sources, mixed in the train split, one source after the other in the evaluation split.

    Train split: each part is cut to data.mixture.max_rows_per_part records, drawn by the seed and its name alone, so
    that other parts change how many are taken of it and not which come first. Counts follow the rates; a part that is
    to give more than it has gives each record once a pass, and in the last pass as many as are left to give. The
    whole is shuffled by the seed.
    Evaluation split: all that the parts hold out, each cut to max_rows_per_part, in the order of the parts. The cut
    does not depend on the seed, so that runs of several seeds are measured on the same records.
    A part without a kind of record is no part of that kind's mixture. Ids of prompts begin with the part's name.
    """

    gold: Callable[[Prompt, str], float] | None = None  # a part's judge knows nothing of the others' prompts

    def __init__(
        self, parts: Mapping[str, tuple[DataSource, float]], config: MixtureConfig, seed: int, read: dict[str, Any]
    ) -> None:
        assert parts, "a mixture needs parts"
        self._parts = parts
        self._config = config
        self._seed = seed
        self._read = read
        self._realised: dict[str, dict[str, int] | None] | None = None

    def demonstrations(self, split: Split) -> Sequence[Demonstration]:
        return self._mixed("demonstrations", split, _renamed)

    def rankings(self, split: Split, sample: Sampler) -> Sequence[Ranking]:
        return self._mixed("rankings", split, _renamed, sample)

    def prompts(self, split: Split) -> Sequence[Prompt]:
        """Of a conversation that several parts have, the first part's prompt is taken."""
        return self._mixed("prompts", split, _named)

    def texts(self, split: Split) -> Sequence[str]:
        """The documents of the parts that have some; where none has, the demonstrations of all as plain text."""
        return self._mixed("texts", split, lambda name, text: text)

    @property
    def has_texts(self) -> bool:
        return any(source.has_texts for source, _ in self._parts.values())

    def fingerprint(self) -> dict[str, Any]:
        """The parts' own, how they are mixed, and `realised`: how many training records each gives, by kind.

        A kind that no part has is not in `realised`, and rankings are None where they are of what the SFT model is
        yet to write.
        """
        if self._realised is None:
            self._realised = self._realise()
        return {
            "source": DataSourceName.mixture.value,
            "parts": {name: source.fingerprint() for name, (source, _) in self._parts.items()},
            "weights": {name: weight for name, (_, weight) in self._parts.items()},
            "mixture": {**asdict(self._config), "sampling": self._config.sampling.value},
            "seed": self._seed,
            "realised": self._realised,
            **self._read,
        }

    def _realise(self) -> dict[str, dict[str, int] | None]:
        realised: dict[str, dict[str, int] | None] = {}
        for kind in KINDS:
            try:
                pools = self._pools(kind, Split.train, no_sampler)
            except UserError:
                continue
            except NeedsSamplerError:
                realised[kind] = None
                continue
            counts = self._counts(pools)
            realised[kind] = {pool.name: count for pool, count in zip(pools, counts, strict=True)}
        return realised

    def _mixed(self, kind: str, split: Split, see: Callable[[str, T], T], sample: Sampler | None = None) -> Picked[T]:
        pools = self._pools(kind, split, sample or no_sampler)
        if split == Split.train:
            taken = [pool.take(count) for pool, count in zip(pools, self._counts(pools), strict=True)]
        else:
            taken = [np.sort(pool.indices) for pool in pools]
        part = np.repeat(np.arange(len(pools), dtype=np.int32), [len(indices) for indices in taken])
        index = np.concatenate(taken)
        if split == Split.train:
            order = _permutation(len(index), self._seed, "order", kind)
            part, index = part[order], index[order]
        return Picked([pool.records for pool in pools], part, index, lambda i, record: see(pools[i].name, record))

    def _counts(self, pools: Sequence[_Pool]) -> list[int]:
        available = [len(pool.indices) for pool in pools]
        shares = rates(available, [pool.weight for pool in pools], self._config)
        rows = largest(available, shares) if self._config.rows is None else self._config.rows
        return apportion(rows, shares)

    def _pools(self, kind: str, split: Split, sample: Sampler) -> list[_Pool]:
        """The parts that have records of a kind. Raises UserError when none has."""
        pools, refusals, seen = [], [], set[int]()
        for name, (source, weight) in self._parts.items():
            try:
                records = self._records(source, kind, split, sample)
            except UserError as error:
                refusals.append(f"{name}: {error}")
                continue
            indices = self._cut(name, split, len(records))
            if kind == "prompts":
                indices = _unseen(records, indices, seen)
            if len(indices):
                pools.append(_Pool(name, weight, records, indices))
        if not pools:
            names = ", ".join(self._parts)
            why = f" ({' '.join(refusals)})" if refusals else ""
            raise UserError(f"No part of the mixture ({names}) has {kind} in its {split.value} split.{why}")
        return pools

    def _records(self, source: DataSource, kind: str, split: Split, sample: Sampler) -> Sequence[Any]:
        if kind == "rankings":
            return source.rankings(split, sample)
        if kind == "texts":
            # Demonstrations written out are no documents, and a mixture that has documents says that it has.
            return source.texts(split) if source.has_texts or not self.has_texts else []
        return source.prompts(split) if kind == "prompts" else source.demonstrations(split)

    def _cut(self, name: str, split: Split, count: int) -> np.ndarray:
        place = (self._seed, "part", name) if split == Split.train else ("evaluation", name)
        return _permutation(count, *place)[: self._config.max_rows_per_part]


def _permutation(count: int, *place: int | str) -> np.ndarray:
    """0 to count - 1 in an order that `place` fixes."""
    digest = hashlib.sha256("/".join(str(part) for part in place).encode()).digest()
    return np.random.default_rng(int.from_bytes(digest, "big")).permutation(count)


def _unseen(prompts: Sequence[Prompt], indices: np.ndarray, seen: set[int]) -> np.ndarray:
    """Those of `indices` whose conversations are new, which `seen` then has."""
    new = np.zeros(len(indices), dtype=bool)
    for place, key in enumerate(_keys(prompts, indices)):
        new[place] = key not in seen
        seen.add(key)
    return indices[new]


def _keys(prompts: Sequence[Prompt], indices: np.ndarray) -> list[int]:
    """A number for each conversation, which a store already has."""
    if isinstance(prompts, StoredRecords):
        return prompts.store.key[prompts.indices[indices]].tolist()
    return [place_of(key_of(prompts[index])) for index in indices.tolist()]


def _named(name: str, prompt: Prompt) -> Prompt:
    return replace(prompt, id=f"{name}:{prompt.id}")


def _renamed(name: str, record: Any) -> Any:
    return replace(record, prompt=_named(name, record.prompt))

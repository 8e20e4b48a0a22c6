from __future__ import annotations

import itertools
import json
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any, overload

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.config import MixtureConfig, Sampling
from rlhf.data.mixture import MixtureSource, Picked, apportion, largest, rates
from rlhf.data.records import DataSource, Demonstration, Message, Prompt, Ranking, Role, Sampler, Split
from rlhf.data.store import Store, encode, write
from rlhf.errors import UserError

SIZES = st.lists(st.integers(1, 300), min_size=1, max_size=5)


def prompt(name: str, number: int) -> Prompt:
    return Prompt(str(number), (Message(Role.user, f"{name} {number}"),))


@dataclass
class Source:
    """A source of numbered records; a kind it has none of is a UserError, as with files."""

    name: str
    counts: dict[str, int]
    held_out: int = 3
    samples: bool = False
    gold: Callable[[Prompt, str], float] | None = field(default=lambda prompt, response: 1.0)

    def _some(self, kind: str, split: Split) -> range:
        count = self.counts.get(kind, 0)
        if not count:
            raise UserError(f"{self.name} has no {kind}.")
        return range(count) if split == Split.train else range(1000, 1000 + self.held_out)

    def demonstrations(self, split: Split) -> list[Demonstration]:
        return [Demonstration(prompt(self.name, i), "x") for i in self._some("demonstrations", split)]

    def rankings(self, split: Split, sample: Sampler) -> list[Ranking]:
        prompts = [prompt(self.name, i) for i in self._some("rankings", split)]
        completions = sample(prompts, [2] * len(prompts)) if self.samples else [["a", "b"]] * len(prompts)
        return [Ranking(p, tuple(c), (0, 1)) for p, c in zip(prompts, completions, strict=True)]

    def prompts(self, split: Split) -> list[Prompt]:
        return [prompt(self.name, i) for i in self._some("prompts", split)]

    def texts(self, split: Split) -> list[str]:
        kind = "texts" if self.has_texts else "demonstrations"
        return [f"{self.name} {i}" for i in self._some(kind, split)]

    @property
    def has_texts(self) -> bool:
        return "texts" in self.counts

    def fingerprint(self) -> dict[str, Any]:
        return {"sha256": self.name}


def mixture(
    sizes: dict[str, int], weights: dict[str, float] | None = None, *, seed: int = 0, kind: str = "", **settings: Any
) -> MixtureSource:
    kinds = [kind] if kind else ["demonstrations", "rankings", "prompts"]
    parts = {
        name: (Source(name, dict.fromkeys(kinds, size)), (weights or {}).get(name, 1.0)) for name, size in sizes.items()
    }
    return MixtureSource(parts, MixtureConfig(**settings), seed, {})


def sizes_of(sizes: Sequence[int]) -> dict[str, int]:
    return {f"part{i}": size for i, size in enumerate(sizes)}


def ids(source: MixtureSource, split: Split = Split.train) -> list[str]:
    return [d.prompt.id for d in source.demonstrations(split)]


def by_part(names: Sequence[str]) -> Counter[str]:
    return Counter(name.partition(":")[0] for name in names)


# Counts


@pytest.mark.parametrize(
    ("sampling", "bases"),
    [(Sampling.weights, (1, 1, 1)), (Sampling.proportional, (100, 400, 400)), (Sampling.temperature, (10, 20, 20))],
)
def test_rates_are_the_weight_times_one_or_the_capped_records_or_their_root(
    sampling: Sampling, bases: tuple[int, ...]
) -> None:
    config = MixtureConfig(sampling=sampling, cap=400, temperature=2)
    weighted = [base * weight for base, weight in zip(bases, (1, 2, 3), strict=True)]
    expected = [Fraction(rate, sum(weighted)) for rate in weighted]
    assert rates([100, 400, 90000], [1.0, 2.0, 3.0], config) == expected


def test_a_temperature_of_one_is_proportional_and_a_high_one_is_even() -> None:
    proportional = rates([10, 90], [1, 1], MixtureConfig(sampling=Sampling.proportional))
    assert rates([10, 90], [1, 1], MixtureConfig(sampling=Sampling.temperature, temperature=1)) == proportional
    even = rates([10, 90], [1, 1], MixtureConfig(sampling=Sampling.temperature, temperature=1e9))
    assert float(even[0]) == pytest.approx(0.5)


SHARES = st.lists(st.integers(1, 1000), min_size=1, max_size=6).map(
    lambda rates: [Fraction(rate, sum(rates)) for rate in rates]
)


@given(st.integers(0, 10000), SHARES)
def test_counts_sum_to_the_rows_and_are_within_one_of_their_share(rows: int, shares: list[Fraction]) -> None:
    counts = apportion(rows, shares)
    assert sum(counts) == rows
    assert all(abs(count - rows * share) < 1 for count, share in zip(counts, shares, strict=True))


def test_the_rows_left_over_go_to_the_largest_remainders() -> None:
    assert apportion(10, [Fraction(1, 3), Fraction(14, 30), Fraction(6, 30)]) == [3, 5, 2]
    assert apportion(1, [Fraction(1, 2), Fraction(1, 2)]) == [1, 0]


@given(SIZES, st.data())
def test_the_largest_mixture_fits_and_one_share_more_does_not(available: list[int], data: st.DataObject) -> None:
    raw = data.draw(st.lists(st.integers(1, 100), min_size=len(available), max_size=len(available)))
    shares = [Fraction(rate, sum(raw)) for rate in raw]
    rows = largest(available, shares)
    assert all(count <= most for count, most in zip(apportion(rows, shares), available, strict=True))
    assert any((rows + 1) * share > most for share, most in zip(shares, available, strict=True))


# Records


@given(SIZES, st.sampled_from(Sampling), st.integers(1, 300), st.integers(1, 300))
def test_without_rows_no_record_is_taken_twice_and_no_part_gives_more_than_its_cut(
    sizes: list[int], sampling: Sampling, cap: int, cut: int
) -> None:
    taken = ids(mixture(sizes_of(sizes), sampling=sampling, cap=cap, max_rows_per_part=cut))
    assert taken
    assert len(set(taken)) == len(taken)
    assert all(count <= cut for count in by_part(taken).values())


@given(SIZES, st.integers(1, 2000), st.integers(1, 300), st.integers(0, 3))
def test_with_rows_there_are_so_many_and_passes_over_a_part_are_whole(
    sizes: list[int], rows: int, cut: int, seed: int
) -> None:
    source = mixture(
        sizes_of(sizes), sampling=Sampling.weights, rows=rows, max_rows_per_part=cut, seed=seed, kind="demonstrations"
    )
    taken = ids(source)
    assert len(taken) == rows
    for name, count in by_part(taken).items():
        times = Counter(Counter(i for i in taken if i.startswith(f"{name}:")).values())
        available = min(sizes[int(name.removeprefix("part"))], cut)
        passes, remainder = divmod(count, available)
        expected = {passes: available - remainder, passes + 1: remainder}
        assert dict(times) == {k: v for k, v in expected.items() if k and v}


def test_shares_converge_to_the_rates() -> None:
    sizes = {"small": 50, "middle": 200, "large": 5000}
    weights = {"small": 0.5, "middle": 2.0, "large": 1.0}
    for rows in (100, 10000):
        taken = by_part(ids(mixture(sizes, weights, sampling=Sampling.weights, rows=rows)))
        for name, weight in weights.items():
            assert abs(taken[name] / rows - weight / 3.5) <= 1 / rows


def test_proportional_takes_all_of_a_small_part_and_the_cap_of_a_large_one() -> None:
    taken = by_part(ids(mixture({"small": 50, "large": 400}, cap=100)))
    assert taken == {"small": 50, "large": 100}


def test_the_cut_and_the_remainder_are_drawn_and_not_the_first_records() -> None:
    choices: list[dict[str, Any]] = [{"max_rows_per_part": 100}, {"rows": 100}]
    for settings in choices:
        numbers = [int(i.partition(":")[2]) for i in ids(mixture({"a": 1000}, **settings))]
        assert len(numbers) == 100
        assert 400 < np.mean(numbers) < 600  # 500 and 3.6 standard deviations
        assert max(numbers) > 900


def test_the_same_seed_gives_the_same_order_and_another_seed_another_choice() -> None:
    sizes = {"a": 200, "b": 300}
    settings: dict[str, Any] = {"max_rows_per_part": 100}
    first = ids(mixture(sizes, **settings))
    assert first == ids(mixture(sizes, **settings))
    other = ids(mixture(sizes, seed=1, **settings))
    assert set(other) != set(first)
    whole, again = ids(mixture(sizes)), ids(mixture(sizes, seed=1))
    assert sorted(whole) == sorted(again)
    assert whole != again


def test_the_order_is_the_seeds_where_the_choice_is_not() -> None:
    order = [[i.partition(":")[0] for i in ids(mixture({"a": 100, "b": 100}, seed=seed))] for seed in (0, 1)]
    assert order[0] != order[1]


def test_the_mixture_is_shuffled() -> None:
    order = [i.partition(":")[0] for i in ids(mixture({"a": 500, "b": 500}))]
    changes = sum(before != after for before, after in itertools.pairwise(order))
    assert 440 < changes < 560


def test_another_part_changes_none_of_a_parts_records() -> None:
    def of_a(sizes: dict[str, int], **settings: Any) -> set[str]:
        return {i for i in ids(mixture(sizes, max_rows_per_part=50, **settings)) if i.startswith("a:")}

    alone = of_a({"a": 300})
    assert len(alone) == 50
    assert of_a({"b": 80, "a": 300, "c": 500}) == alone
    fewer = of_a({"b": 10, "a": 300}, sampling=Sampling.weights)
    assert len(fewer) == 10
    assert fewer < alone


def test_evaluation_is_all_that_parts_hold_out_in_their_order_whatever_rates_and_seed() -> None:
    expected = [f"{name}:{i}" for name in ("b", "a") for i in range(1000, 1003)]
    for seed in (0, 1):
        source = mixture({"b": 5, "a": 200}, {"a": 9.0}, sampling=Sampling.weights, rows=1000, seed=seed)
        assert ids(source, Split.evaluation) == expected
        assert len(source.prompts(Split.evaluation)) == len(source.rankings(Split.evaluation, no_sampler)) == 6


def test_evaluation_is_cut_alike_for_every_seed() -> None:
    parts = {name: (Source(name, {"demonstrations": 1}, held_out=100), 1.0) for name in ("a", "b")}
    taken = [
        ids(MixtureSource(parts, MixtureConfig(max_rows_per_part=20), seed, {}), Split.evaluation) for seed in (0, 1)
    ]
    assert taken[0] == taken[1]
    assert by_part(taken[0]) == {"a": 20, "b": 20}
    assert taken[0] == sorted(taken[0])
    assert {i.partition(":")[2] for i in taken[0][:20]} != {str(i) for i in range(1000, 1020)}


def no_sampler(prompts: Sequence[Prompt], counts: Sequence[int]) -> list[list[str]]:
    raise AssertionError("nothing here is to be sampled")


def test_a_part_without_a_kind_takes_no_part_in_it() -> None:
    parts = {
        "shown": (Source("shown", {"demonstrations": 10, "prompts": 10}), 1.0),
        "ranked": (Source("ranked", {"rankings": 7, "prompts": 5}), 1.0),
    }
    source = MixtureSource(parts, MixtureConfig(), 0, {})
    assert by_part(ids(source)) == {"shown": 10}
    assert by_part([r.prompt.id for r in source.rankings(Split.train, no_sampler)]) == {"ranked": 7}
    assert by_part([p.id for p in source.prompts(Split.train)]) == {"shown": 10, "ranked": 5}


def test_a_kind_that_no_part_has_is_refused_by_the_parts_names() -> None:
    with pytest.raises(UserError, match=r"No part of the mixture \(a, b\) has rankings in its train split.*b has no"):
        mixture({"a": 3, "b": 3}, kind="prompts").rankings(Split.train, no_sampler)


def test_a_conversation_of_two_parts_is_asked_once() -> None:
    parts = {
        "first": (Source("same", {"prompts": 10}), 1.0),
        "second": (Source("same", {"prompts": 30}), 1.0),
        "third": (Source("same", {"prompts": 5}), 1.0),
    }
    prompts = MixtureSource(parts, MixtureConfig(), 0, {}).prompts(Split.train)
    assert by_part([p.id for p in prompts]) == {"first": 10, "second": 20}
    assert len({p.messages for p in prompts}) == 30


def test_documents_are_not_mixed_with_demonstrations_written_out() -> None:
    documents = (Source("documents", {"texts": 4}), 1.0)
    shown = (Source("shown", {"demonstrations": 6}), 1.0)
    both = MixtureSource({"d": documents, "s": shown}, MixtureConfig(), 0, {})
    assert both.has_texts
    assert sorted(both.texts(Split.train)) == [f"documents {i}" for i in range(4)]
    without = MixtureSource({"s": shown}, MixtureConfig(), 0, {})
    assert not without.has_texts
    assert len(without.texts(Split.train)) == 6


def test_completions_are_sampled_for_the_parts_that_ask_for_them() -> None:
    asked: list[Prompt] = []

    def sample(prompts: Sequence[Prompt], counts: Sequence[int]) -> list[list[str]]:
        asked.extend(prompts)
        return [["c", "d"] for _ in prompts]

    parts = {
        "labelled": (Source("l", {"rankings": 4}, samples=True), 1.0),
        "ranked": (Source("r", {"rankings": 4}), 1.0),
    }
    source = MixtureSource(parts, MixtureConfig(), 0, {})
    rankings = source.rankings(Split.train, sample)
    assert len(asked) == 4
    assert {(r.prompt.id.partition(":")[0], r.completions) for r in rankings} == {
        ("labelled", ("c", "d")),
        ("ranked", ("a", "b")),
    }
    assert source.fingerprint()["realised"]["rankings"] is None


def test_the_fingerprint_says_what_is_mixed_and_how_many_of_each() -> None:
    source = mixture({"small": 50, "large": 400}, {"large": 2.0}, cap=100, kind="demonstrations")
    read = source.fingerprint()
    assert json.loads(json.dumps(read)) == read
    assert read["parts"] == {"small": {"sha256": "small"}, "large": {"sha256": "large"}}
    assert read["weights"] == {"small": 1.0, "large": 2.0}
    assert (read["mixture"]["sampling"], read["mixture"]["cap"], read["seed"]) == ("proportional", 100, 0)
    assert read["realised"] == {kind: {"small": 50, "large": 200} for kind in ("demonstrations", "texts")}
    assert by_part(ids(source)) == read["realised"]["demonstrations"]
    assert mixture({"small": 50}, seed=1).fingerprint()["seed"] == 1
    assert (
        MixtureSource({"a": (Source("a", {"texts": 3}), 1.0)}, MixtureConfig(), 0, {"read": 5}).fingerprint()["read"]
        == 5
    )


def test_no_judge_of_a_part_judges_the_mixture() -> None:
    assert mixture({"a": 3}).gold is None


# Laziness


class Counting(Sequence[int]):
    """A million numbers, none of which is there before it is asked for."""

    def __init__(self) -> None:
        self.fetched = 0

    def __len__(self) -> int:
        return 1_000_000

    @overload
    def __getitem__(self, index: int) -> int: ...
    @overload
    def __getitem__(self, index: slice) -> Sequence[int]: ...
    def __getitem__(self, index: int | slice) -> int | Sequence[int]:
        assert isinstance(index, int)
        self.fetched += 1
        return index


@dataclass
class Held(Source):
    """A source of given sequences."""

    held: dict[str, Sequence[Any]] = field(default_factory=dict)

    def demonstrations(self, split: Split) -> Any:
        return self.held["demonstrations"]

    def prompts(self, split: Split) -> Any:
        return self.held["prompts"]

    def texts(self, split: Split) -> Any:
        return self.held["texts"]


def test_records_are_fetched_when_they_are_asked_for() -> None:
    large = Counting()
    source = MixtureSource(
        {"large": (Held("large", {}, held={"texts": large}), 1.0)}, MixtureConfig(max_rows_per_part=None), 0, {}
    )
    mixed = source.texts(Split.train)
    assert len(mixed) == 1_000_000
    assert len(mixed[10:20]) == 10
    assert large.fetched == 0
    assert mixed[-1] == mixed[999_999]
    assert large.fetched == 2


@given(st.lists(st.integers(0, 2), max_size=50), st.integers(-60, 60), st.integers(-60, 60))
def test_a_pick_is_indexed_sliced_and_iterated_as_a_list_is(of_part: list[int], start: int, stop: int) -> None:
    parts = [[f"{name}{i}" for i in range(50)] for name in "abc"]
    picked = Picked(
        parts, np.array(of_part, np.int32), np.arange(len(of_part)), lambda part, record: f"{part} {record}"
    )
    plain = [f"{part} {parts[part][i]}" for i, part in enumerate(of_part)]
    assert list(picked) == [picked[i] for i in range(len(picked))] == plain
    assert list(picked[start:stop]) == plain[start:stop]


def test_records_on_disk_are_mixed_as_those_in_memory_are(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    records = [Demonstration(prompt("same", i % 1500), f"response {i}") for i in range(2500)]
    write(tmp_path / "kept" / "records.arrow", map(encode, records))
    store = Store(tmp_path / "kept" / "records.arrow")
    every = np.arange(len(records))
    in_memory: dict[str, Sequence[Any]] = {"demonstrations": records, "prompts": [record.prompt for record in records]}
    on_disk: dict[str, Sequence[Any]] = {
        "demonstrations": store.pick(every, lambda record: record),
        "prompts": store.pick(every, lambda record: record.prompt),
    }
    mixed = []
    for held in (in_memory, on_disk):
        parts: dict[str, tuple[DataSource, float]] = {
            "held": (Held("held", {}, held=held), 1.0),
            "other": (Source("other", {"demonstrations": 2000, "prompts": 2000}), 1.0),
        }
        source = MixtureSource(parts, MixtureConfig(), 0, {})
        mixed.append((list(source.demonstrations(Split.train)), list(source.prompts(Split.train))))
    assert mixed[0] == mixed[1]
    assert len(mixed[0][0]) == 4500
    assert by_part([p.id for p in mixed[0][1]]) == {"held": 1500, "other": 2000}

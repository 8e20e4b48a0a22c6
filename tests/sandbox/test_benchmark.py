from __future__ import annotations

import re
from collections import Counter

import pytest

from rlhf.config import ModelConfig, SandboxConfig
from rlhf.data.records import MultipleChoice
from rlhf.evaluation.answering.multiple_choice import chosen, option_logprobs
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.sandbox import world as w
from rlhf.sandbox.benchmark import TASKS, benchmark
from rlhf.sandbox.corpus import documents
from rlhf.sandbox.source import SandboxSource
from rlhf.sandbox.world import World

WORLD = World.from_seed(0)
ITEMS = benchmark(WORLD)


def of(task: str) -> list[MultipleChoice]:
    return [item for item in ITEMS if item.task == task]


def right(item: MultipleChoice) -> str:
    return item.options[item.answer].removeprefix(" ").removesuffix(".")


def words(text: str) -> list[str]:
    return re.findall(r"\w+", text)


def test_every_seed_asks_the_same_and_another_world_asks_otherwise() -> None:
    config = SandboxConfig()
    assert SandboxSource(config, seed=1).benchmark() == SandboxSource(config, seed=2).benchmark() == ITEMS
    assert benchmark(World.from_seed(1)) != ITEMS


def test_a_hundred_different_items_a_task_that_take_turns() -> None:
    assert Counter(item.task for item in ITEMS) == dict.fromkeys(TASKS, 100)
    assert [item.task for item in ITEMS[: len(TASKS)]] == list(TASKS)
    for task in TASKS:
        assert len({item.context for item in of(task)}) == 100


def test_options_are_four_different_ones_and_the_right_one_has_no_favourite_place() -> None:
    assert all(len(set(item.options)) == 4 for item in ITEMS)
    places = Counter(item.answer for item in ITEMS)
    assert all(220 < places[place] < 330 for place in range(4))


def test_everything_is_prose_in_the_words_of_the_corpus() -> None:
    known = set(words(" ".join(documents(WORLD, 20_000, "train"))))
    for item in ITEMS:
        assert set(words(item.context + "".join(item.options))) <= known
        assert not re.search(r"User|Assistant|\?|\n", item.context)
        assert not item.context.endswith(" ")
        assert all(option.startswith(" ") and option.endswith(".") for option in item.options)


def test_facts_are_those_of_the_world() -> None:
    for item in of("capitals"):
        [country] = [c for c in w.COUNTRIES if c in item.context.split(".")[-1]]
        assert right(item) == WORLD.capitals[country]
    for item in of("animals"):
        asked = item.context.split(".")[-1].split()
        assert right(item) == w.ANIMALS[asked[1]][{"says": 0, "eats": 1, "lives": 2}[asked[2]]]
    for item in of("opposites"):
        word = item.context.split(".")[-1].split()[-2]
        assert {word, right(item)} in [set(pair) for pair in w.OPPOSITES]


def test_sums_are_right_and_the_others_are_not() -> None:
    for item in of("sums"):
        left, sign, other = re.search(r"(\d) (\+|-|plus|minus) (\d)", item.context).groups()  # type: ignore[union-attr]
        total = int(left) + int(other) * (1 if sign in ("+", "plus") else -1)
        assert [int(option.strip(" .")) == total for option in item.options].index(True) == item.answer


def test_lists_are_sorted_reversed_and_changed_rightly_and_other_options_hold_the_same_words() -> None:
    for task in ("sorting", "reversing", "replacing"):
        for item in of(task):
            given = item.context.partition(": ")[2].partition(".")[0].split(", ")
            got = right(item).split(", ")
            if task == "sorting":
                assert got == sorted(given) != given
            elif task == "reversing":
                assert got == given[::-1]
            else:
                new, old = re.search(r"(?:With|Put) (\w+) (?:in place of|for) (\w+)", item.context).groups()  # type: ignore[union-attr]
                assert got == [new if word == old else word for word in given]
                continue
            assert all(sorted(option.strip(" .").split(", ")) == sorted(given) for option in item.options)


def test_what_is_read_stands_in_the_passage_and_what_the_other_person_has_is_an_option() -> None:
    tempting = 0
    for item in of("reading"):
        asked = item.context.split(". ")[-1]
        name = next(name for name in w.NAMES if name in asked)
        said = {"city": "lives in", "job": "works as a", "food": "likes", "pet": "has a pet"}
        verb = next(verb for key, verb in said.items() if key in asked)
        assert f"{name} {verb} {right(item)}." in item.context
        others = set(re.findall(rf"{verb} (\w+)\.", item.context)) - {right(item)}
        tempting += bool(others)
        assert all(f" {other}." in item.options for other in others)
    assert tempting > 20


def test_a_topic_a_review_and_a_member_fit_what_goes_before() -> None:
    for item in of("reviews"):
        good = "positive" in item.context
        assert [option.strip(" .") in (w.GOOD_WORDS if good else w.BAD_WORDS) for option in item.options].count(
            True
        ) == 1
        assert right(item) in (w.GOOD_WORDS if good else w.BAD_WORDS)
    for item in of("members"):
        count = w.NUMBERS.index(item.context.split()[0].lower())
        assert len(item.context.partition(": ")[2].rstrip(",").split(",")) == count - 1
        assert right(item) not in item.context


@pytest.mark.slow
def test_the_base_models_know_most_of_it_and_larger_ones_more() -> None:
    items = benchmark(WORLD, per_task=20)
    accuracy = {}
    for size in ("s", "m"):
        path = f"builtin:sandbox-{size}"
        choices = chosen(option_logprobs(load_causal_lm(path, ModelConfig()), load_tokenizer(path), items))
        accuracy[size] = sum(c == item.answer for c, item in zip(choices, items, strict=True)) / len(items)
    assert 0.85 < accuracy["s"] < accuracy["m"] < 1.0

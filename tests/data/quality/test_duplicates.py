from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from rlhf.config import QualityConfig
from rlhf.data.quality import duplicates_of, screen
from rlhf.data.quality.near_duplicates import near_duplicates
from rlhf.data.quality.survivors import Survivors
from rlhf.data.quality.words import words
from rlhf.data.records import Demonstration, Document, Message, Prompt, Ranking, Record, Role

EXACT = QualityConfig(duplicates=True)
NEAR = QualityConfig(near_duplicates=0.8)
WORDS = [f"word{i}" for i in range(2000)]


def asked(*turns: str, id: str = "", system: str = "") -> Prompt:
    said = [Message(Role.user if i % 2 == 0 else Role.assistant, turn) for i, turn in enumerate(turns)]
    return Prompt(id, ((Message(Role.system, system),) if system else ()) + tuple(said))


def kept(records: Iterable[Record], config: QualityConfig) -> list[int]:
    records = list(records)
    return [i for i, reason in enumerate(screen(records, [False] * len(records), config)) if reason is None]


def text(seed: int, count: int = 100) -> list[str]:
    return random.Random(seed).choices(WORDS, k=count)


def test_case_and_spaces_make_no_difference_and_the_first_stays() -> None:
    records = [
        Demonstration(asked("Hello  there", id="a:1"), "Hi!"),
        Demonstration(asked("hello\nTHERE", id="a:2"), " hi! "),
        Demonstration(asked("hello there"), "hi?"),
        Demonstration(asked("Hello there", id="a:4"), "HI!"),
    ]
    reason = "it repeats a:1, case and spaces aside"
    assert screen(records, [False] * 4, EXACT) == [None, reason, None, reason]


def test_a_record_without_an_id_is_named_by_where_it_stands() -> None:
    records = [Document("x"), Document("y"), Document("Y")]
    assert screen(records, [False] * 3, EXACT)[2] == "it repeats record 2, case and spaces aside"


def test_who_says_it_and_what_is_before_it_counts() -> None:
    records = [
        Demonstration(asked("a", "b", "c"), "d"),
        Demonstration(asked("a", "b c", "c"), "d"),
        Demonstration(asked("a b c"), "d"),
        Demonstration(asked("a", "b", "c", system="s"), "d"),
        Demonstration(asked("a"), "b c d"),
        Demonstration(asked("b", system="a"), "c"),
        Demonstration(Prompt("", (Message(Role.assistant, "a"), Message(Role.user, "b"))), "c"),
    ]
    assert kept(records, EXACT) == [0, 1, 2, 3, 4, 5, 6]


def test_kinds_of_one_prompt_are_no_duplicates() -> None:
    prompt = asked(" ".join(text(1)))
    records: list[Record] = [
        prompt,
        Demonstration(prompt, "yes it is so"),
        Ranking(prompt, ("yes it is so", "no"), (0, 1)),
        Document(" ".join(text(1))),
    ]
    both = QualityConfig(duplicates=True, near_duplicates=0.5)
    assert kept(records, both) == [0, 1, 2, 3]
    assert kept([*records, *records], both) == [0, 1, 2, 3]


def test_a_ranking_is_its_completions_and_their_ranks_in_any_order() -> None:
    prompt = asked("q")
    records = [
        Ranking(prompt, ("x", "y", "z"), (0, 1, 2)),
        Ranking(prompt, ("z", "X", "y"), (2, 0, 1)),
        Ranking(prompt, ("x", "y", "z"), (1, 0, 2)),
        Ranking(prompt, ("x", "y"), (0, 1)),
    ]
    assert kept(records, EXACT) == [0, 2, 3]


def jaccard(a: str, b: str) -> float:
    """Of the sets of word 5-grams, said slowly."""
    sets = []
    for each in (a, b):
        found = words(each)
        sets.append({tuple(found[i : i + 5]) for i in range(len(found) - 4)})
    return len(sets[0] & sets[1]) / len(sets[0] | sets[1])


@pytest.mark.parametrize("threshold", [0.3, 0.5, 0.8, 0.9])
def test_pairs_well_above_the_threshold_are_found_and_those_well_below_are_not(threshold: float) -> None:
    missed = wrong = above = below = 0
    for seed in range(120):
        original = text(seed, 200)
        # One piece replaced: of 196 5-grams, changed + 4 differ.
        changed = int(150 * (seed / 120) ** 2)
        other = [*original[:20], *text(seed + 1000, changed), *original[20 + changed :]]
        true = jaccard(" ".join(original), " ".join(other))
        found = list(near_duplicates(Survivors([Document(" ".join(original)), Document(" ".join(other))]), threshold))
        if true > threshold + 0.1:
            above += 1
            missed += not found
        elif true < threshold - 0.12:
            below += 1
            wrong += bool(found)
    if threshold < 0.9:  # no pair is 1.0 alike
        assert above > 15
    assert below > 5
    assert missed <= above * 0.03
    assert wrong <= below * 0.03


def test_the_reason_names_the_original_and_how_alike_they_are() -> None:
    original = text(1)
    records = [Demonstration(asked("what now", id="a"), " ".join([*original, end])) for end in ("x", "y")]
    reason = screen(records, [False, False], NEAR)[1]
    assert reason is not None
    found = int(reason.removeprefix("it is a near duplicate of a: about ").split("%")[0])
    assert abs(found - 98) <= 4


def test_of_records_alike_in_a_chain_each_is_compared_with_those_that_stay() -> None:
    stream = text(3, 200)
    chain = [Document(" ".join(stream[5 * i : 5 * i + 100])) for i in range(12)]  # neighbours are 0.9 alike
    stays = kept(chain, NEAR)
    assert stays[0] == 0
    assert 3 <= len(stays) <= 6
    assert kept([chain[i] for i in stays], NEAR) == list(range(len(stays)))


def test_answers_to_one_long_question_are_compared_alone() -> None:
    prompt = asked(" ".join(text(1, 400)))
    answer = text(2, 100)
    records: list[Record] = [
        Demonstration(prompt, " ".join(text(5, 10))),
        Demonstration(prompt, " ".join(text(6, 10))),
        Demonstration(prompt, " ".join(answer)),
        Demonstration(prompt, " ".join([*answer[:-1], "other"])),
        Ranking(prompt, ("one two three", "four five six"), (0, 1)),
        Ranking(prompt, ("one two three", "seven eight nine"), (0, 1)),
        Ranking(prompt, ("one two three!", "FOUR five six."), (0, 1)),
    ]
    assert kept(records, NEAR) == [0, 1, 2, 4, 5]


def test_short_texts_are_compared_by_their_words() -> None:
    records = [Document("one two three"), Document("Three, two - one!"), Document("one two four")]
    assert kept(records, NEAR) == [0, 2]


def test_texts_without_words_stay() -> None:
    records: list[Record] = [Document(":)"), Document(":("), asked("???"), Demonstration(asked("!"), "?"), asked("!!")]
    assert kept(records, NEAR) == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("threshold", [0.01, 0.999, 1.0])
def test_every_threshold_that_the_config_allows_works(threshold: float) -> None:
    records = [Document("a b c d e f g"), Document("a b c d e f g!"), Document("h i j k l m n")]
    assert kept(records, QualityConfig(near_duplicates=threshold)) == [0, 2]


def test_counts_of_duplicates_need_no_config() -> None:
    long = " ".join(text(1))
    records = [Document(long), Document(long.upper()), Document(long + " x"), Document("else"), Document("else")]
    found = duplicates_of(records)
    assert (found.exact, found.near) == (2, 1)
    assert found.examples[0] == "record 2: it repeats record 1, case and spaces aside"
    assert found.examples[2].startswith("record 3: it is a near duplicate of record 1")
    assert duplicates_of([]) == (0, 0, [])

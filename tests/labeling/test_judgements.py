from __future__ import annotations

from typing import Any

import pytest

from rlhf.labeling.judgements import ATTRIBUTES, InvalidError, labeler_name, parse
from tests.support.labeling import item, sent

ITEM = item()
IDS = [response.id for response in ITEM.responses]


def test_places_become_ranks_without_gaps_and_keep_ties() -> None:
    assert list(parse(sent(ITEM, (2, 0, 2)), ITEM).ranks.values()) == [1, 0, 1]


def test_quality_and_attributes_are_by_response_and_those_not_given_are_not_there() -> None:
    said = parse(
        sent(ITEM, (0, 1, 2), quality={IDS[1]: 7}, attributes={IDS[0]: ["opinion", "violent"], IDS[2]: []}), ITEM
    )
    assert said.quality == {IDS[1]: 7}
    assert said.attributes == {IDS[0]: ["violent", "opinion"]}
    assert not said.skipped


def test_what_is_skipped_says_nothing_of_the_responses() -> None:
    said = parse(sent(ITEM, (0, 1, 2), quality={IDS[0]: 3}, skipped=True), ITEM)
    assert said.skipped
    assert (said.ranks, said.quality) == ({}, {})


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"id": "x"}, "`id` is not 32"),
        ({"id": None}, "`id` is not 32"),
        ({"seconds": float("nan")}, "`seconds`"),
        ({"seconds": -1}, "`seconds`"),
        ({"seconds": True}, "`seconds`"),
        ({"labeler": " "}, "1 to 40 printable"),
        ({"labeler": "a" * 41}, "1 to 40 printable"),
        ({"labeler": "a\x00b"}, "1 to 40 printable"),
        ({"labeler": None}, "is missing"),
        ({"ranks": None}, "`ranks` is not by the responses"),
        ({"ranks": {"x": 0}}, "`ranks` is not by the responses"),
        ({"ranks": {IDS[0]: 0, IDS[1]: 1}}, "does not place every response from 0 to 2"),
        ({"ranks": dict.fromkeys(IDS, 3)}, "does not place every response"),
        ({"ranks": dict.fromkeys(IDS, True)}, "does not place every response"),
        ({"ranks": dict.fromkeys(IDS, 1.0)}, "does not place every response"),
        ({"quality": {IDS[0]: 8}}, "`quality` is not from 1 to 7"),
        ({"quality": {IDS[0]: 0}}, "`quality` is not from 1 to 7"),
        ({"attributes": {IDS[0]: ["nice"]}}, "`attributes` are not lists"),
        ({"attributes": {IDS[0]: "violent"}}, "`attributes` are not lists"),
    ],
)
def test_what_is_no_judgement_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(InvalidError, match=problem):
        parse({**sent(ITEM, (0, 1, 2)), **changes}, ITEM)


def test_one_name_however_it_is_typed() -> None:
    assert labeler_name("  Zoe\u0308   B ") == labeler_name("Zoë B") == "Zoë B"


def test_every_attribute_has_a_key_of_its_own_that_means_nothing_else() -> None:
    keys = [attribute.key for attribute in ATTRIBUTES]
    assert len({*keys, "a", "n", "u", "?"}) == len(keys) + 4
    assert len(ATTRIBUTES) == 11  # InstructGPT's table 3, without overall quality

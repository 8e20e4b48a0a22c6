from __future__ import annotations

from itertools import combinations
from typing import Any

import pytest

from rlhf.labeling.agreement import agreement
from rlhf.labeling.judgements import Judgement
from tests.support.labeling import item, judgement

ITEMS = [item(number) for number in range(4)]


def test_share_counts_pairs_that_neither_ties_once_for_each_two_labelers() -> None:
    found = agreement(
        [
            judgement(ITEMS[0], (0, 1, 2), "Ann"),
            judgement(ITEMS[0], (0, 2, 1), "Ben"),  # 2 of 3 pairs alike
            judgement(ITEMS[0], (0, 0, 1), "Cal"),  # with Ann 2 of 2, with Ben 1 of 2
            judgement(ITEMS[1], (0, 1, 2), "Ann"),  # nobody else's
            judgement(ITEMS[2], (0, 1, 2), "Ann"),
            judgement(ITEMS[2], labeler="Ben"),  # skipped
        ]
    )
    assert (found.items, found.pairs) == (1, 7)
    assert found.share == pytest.approx(5 / 7)
    assert found.by_labeler == {"Ann": pytest.approx(4 / 5), "Ben": pytest.approx(3 / 5), "Cal": pytest.approx(3 / 4)}


def slow_alpha(units: list[list[int]]) -> float:
    """Krippendorff's alpha with the ordinal metric, from its definition, over units with two or more values."""
    values = sorted({value for unit in units for value in unit})
    count = {value: sum(unit.count(value) for unit in units) for value in values}

    def distance(one: int, other: int) -> float:
        low, high = min(one, other), max(one, other)
        between = sum(count[value] for value in values if low <= value <= high)
        return (between - (count[low] + count[high]) / 2) ** 2

    every = [value for unit in units for value in unit]
    observed = sum(2 * sum(distance(a, b) for a, b in combinations(unit, 2)) / (len(unit) - 1) for unit in units)
    expected = 2 * sum(distance(a, b) for a, b in combinations(every, 2)) / (len(every) - 1)
    return 1 - observed / expected


def test_alphas_are_krippendorffs_over_responses_that_two_or_more_judged() -> None:
    said: list[Judgement] = [
        judgement(ITEMS[0], (0, 1, 2), "Ann", quality=(7, 4, None)),
        judgement(ITEMS[0], (0, 2, 1), "Ben", quality=(6, 4, 1)),
        judgement(ITEMS[0], (1, 0, 1), "Cal", quality=(5, None, None)),
        judgement(ITEMS[1], (0, 0, 1), "Ann"),
        judgement(ITEMS[1], (0, 1, 2), "Cal"),
        judgement(ITEMS[2], (2, 1, 0), "Ann", quality=(1, 1, 1)),
    ]
    found = agreement(said)
    assert found.alpha_ranks == pytest.approx(slow_alpha([[0, 0, 1], [1, 2, 0], [2, 1, 1], [0, 0], [0, 1], [1, 2]]))
    assert found.alpha_quality == pytest.approx(slow_alpha([[7, 6, 5], [4, 4]]))


@pytest.mark.parametrize(
    "said",
    [
        [],
        [judgement(ITEMS[0], (0, 1, 2))],
        [judgement(ITEMS[0], (0, 0, 0), name) for name in ("Ann", "Ben")],
        [judgement(ITEMS[0], labeler=name) for name in ("Ann", "Ben")],
    ],
    ids=["nothing", "one labeler", "all tied", "skipped"],
)
def test_where_there_is_nothing_to_agree_on_there_is_no_number(said: list[Any]) -> None:
    found = agreement(said)
    assert (found.pairs, found.share, found.alpha_ranks, found.alpha_quality) == (0, None, None, None)


def test_two_who_say_the_same_agree_wholly() -> None:
    found = agreement([judgement(one, (1, 0, 2), name) for one in ITEMS for name in ("Ann", "Ben")])
    assert (found.share, found.alpha_ranks) == (1, 1)

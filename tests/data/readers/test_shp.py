from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.shp import read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role


def row(**changed: Any) -> dict[str, Any]:
    return {
        "post_id": "qt3nxl",
        "domain": "askculinary_train",
        "upvote_ratio": 0.98,
        "history": "How do I take raspberries apart? Tweezers take too long.",
        "c_root_id_A": "hkh25sc",
        "c_root_id_B": "hkh25lp",
        "created_at_utc_A": 1636822112,
        "created_at_utc_B": 1636822110,
        "score_A": 340,
        "score_B": 166,
        "human_ref_A": "An enzyme, perhaps?",
        "human_ref_B": "The juice stains.",
        "labels": 1,
        "seconds_difference": 2.0,
        "score_ratio": 2.0481927711,
        **changed,
    }


PROMPT = Prompt("", (Message(Role.user, "How do I take raspberries apart? Tweezers take too long."),), "askculinary")


def test_label_1_prefers_a_whatever_the_scores_say() -> None:
    assert read(row(score_A=1)) == [
        Demonstration(PROMPT, "An enzyme, perhaps?"),
        Ranking(PROMPT, ("An enzyme, perhaps?", "The juice stains."), (0, 1)),
    ]


def test_label_0_prefers_b() -> None:
    assert read(row(labels=0)) == [
        Demonstration(PROMPT, "The juice stains."),
        Ranking(PROMPT, ("An enzyme, perhaps?", "The juice stains."), (1, 0)),
    ]


@pytest.mark.parametrize(
    ("domain", "task"),
    [("askvet_validation", "askvet"), ("askvet_test", "askvet"), ("askvet", "askvet"), (None, "")],
)
def test_the_task_is_the_subreddit_in_every_split(domain: str | None, task: str) -> None:
    ranked = read(row(domain=domain))[-1]
    assert isinstance(ranked, Ranking)
    assert ranked.prompt.task == task


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"labels": 2}, "`labels` is '2', neither 0 nor 1"),
        ({"labels": 1.0}, "`labels` is '1.0', neither 0 nor 1"),
        ({"history": ""}, "`history` is empty or whitespace"),
        ({"human_ref_B": None}, "it has no text under `human_ref_B`"),
        ({"human_ref_B": "An enzyme, perhaps? "}, "its completions are the same"),
    ],
)
def test_odd_pairs_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row(**changed))

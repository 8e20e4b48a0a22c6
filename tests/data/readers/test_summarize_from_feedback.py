from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.summarize_from_feedback import read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role, Split

POST: dict[str, Any] = {
    "id": "t3_2vwp1w",
    "post": "The other driver denies it.\n\nWhat can I do?",
    "title": "Car accident.",
    "subreddit": "legaladvice",
}
ARTICLE: dict[str, Any] = {
    "id": "167f80cc",
    "post": None,
    "title": "A red card",
    "subreddit": None,
    "site": "dailymail",
    "article": "He was sent off.",
}


def row(**changed: Any) -> dict[str, Any]:
    return {
        "info": POST,
        "summaries": [
            {"text": " driver denies it. what now?", "policy": "sup4_ppo_rm3_kl10", "note": "Unclear."},
            {"text": " how can I prove it?", "policy": "ref", "note": None},
        ],
        "choice": 1,
        "worker": "ikNmucwunMnYJCQpnq6ZYb57OW7NiD",
        "batch": "batch9",
        "split": "train",
        "extra": {"confidence": 8},
        **changed,
    }


def test_a_post_is_asked_about_as_in_the_paper_and_the_choice_comes_first() -> None:
    query = (
        "SUBREDDIT: r/legaladvice\n\nTITLE: Car accident.\n\n"
        "POST: The other driver denies it.\n\nWhat can I do?\n\nTL;DR:"
    )
    prompt = Prompt("summarize_from_feedback:t3_2vwp1w", (Message(Role.user, query),), "legaladvice", split=Split.train)
    assert read(row()) == [
        Demonstration(prompt, "how can I prove it?"),
        Ranking(prompt, ("driver denies it. what now?", "how can I prove it?"), (1, 0)),
    ]
    assert read(row(choice=0))[0] == Demonstration(prompt, "driver denies it. what now?")


def test_an_article_is_asked_about_without_a_post() -> None:
    (demonstration, _) = read(row(info=ARTICLE, split="valid2"))
    assert isinstance(demonstration, Demonstration)
    assert demonstration.prompt == Prompt(
        "summarize_from_feedback:167f80cc",
        (Message(Role.user, "Article:\nHe was sent off.\n\nTL;DR:"),),
        "dailymail",
        split=Split.evaluation,
    )


@pytest.mark.parametrize(
    ("name", "split"),
    [("train", Split.train), ("valid1", Split.evaluation), ("valid2", Split.evaluation), (None, None)],
)
def test_the_published_split_is_kept(name: str | None, split: Split | None) -> None:
    ranked = read(row(split=name))[-1]
    assert isinstance(ranked, Ranking)
    assert ranked.prompt.split == split


def test_the_labeler_is_not_taken_for_the_author() -> None:
    ranked = read(row())[-1]
    assert isinstance(ranked, Ranking)
    assert ranked.prompt.user == ""


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"choice": 2}, "`choice` is '2', neither 0 nor 1"),
        ({"choice": None}, "`choice` is 'None', neither 0 nor 1"),
        ({"choice": True}, "`choice` is 'True', neither 0 nor 1"),
        ({"split": "dev"}, "`split` is 'dev', none of train, valid1, valid2"),
        ({"info": "post"}, "`info` is not"),
        ({"info": {**POST, "post": " "}}, "`post` is empty or whitespace"),
        ({"info": {**POST, "subreddit": None}}, "it has no text under `subreddit`"),
        ({"summaries": [{"text": "one"}]}, "`summaries` is not a list of 2"),
        ({"summaries": ["one", "two"]}, r"`summaries\[0\]` is not \{text, policy, note\}"),
        ({"summaries": [{"text": "one"}, {"text": "\n"}]}, "`text` is empty or whitespace"),
        ({"summaries": [{"text": "one"}, {"text": " one"}]}, "its completions are the same"),
    ],
)
def test_odd_comparisons_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row(**changed))


def test_a_rating_of_one_summary_is_refused_with_where_the_comparisons_are() -> None:
    rating = {
        "info": ARTICLE,
        "split": "test",
        "summary": {"text": "Sent off.", "policy": "ref", "note": "", "axes": {"overall": 3, "accuracy": 5}},
        "worker": "qo6WIyEh27cwAjWpA3Q60J7NaDxzQJ",
        "batch": "cnndm1",
    }
    with pytest.raises(BadRowError, match="it rates a single summary, which is no comparison") as refused:
        read(rating)
    assert "data.subset=comparisons" in refused.value.remedy

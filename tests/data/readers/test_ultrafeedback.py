from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.ultrafeedback import read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role

PROMPT = Prompt("", (Message(Role.user, "What to see in Cairo?"),), "sharegpt")


def completion(response: str, score: Any, *ratings: Any, **changed: Any) -> dict[str, Any]:
    """Of the corrected file with `fine-grained_score=...`, and without it of the one before."""
    aspects = ("instruction_following", "honesty", "truthfulness", "helpfulness")
    return {
        "annotations": {
            aspect: {"Rating": str(rating), "Rationale": "..."}
            for aspect, rating in zip(aspects, ratings, strict=False)
        },
        "critique": "...",
        "custom_system_prompt": "Be helpful.",
        "model": "gpt-4",
        "overall_score": score,
        "principle": "helpfulness",
        "response": response,
        **changed,
    }


def row(*completions: Any) -> dict[str, Any]:
    return {
        "source": "sharegpt",
        "instruction": "What to see in Cairo?",
        "models": ["gpt-4", "starchat"],
        "completions": list(completions),
        "correct_answers": ["None"],
        "incorrect_answers": ["None"],
    }


def binarized(**changed: Any) -> dict[str, Any]:
    def said(reply: str) -> list[dict[str, str]]:
        return [{"role": "user", "content": "What?"}, {"role": "assistant", "content": reply}]

    return {
        "prompt": "What?",
        "prompt_id": "ab12",
        "chosen": said("That."),
        "rejected": said("This."),
        "messages": said("That."),
        "score_chosen": 8.5,
        "score_rejected": 6.0,
        **changed,
    }


def test_completions_rank_by_score_with_ties() -> None:
    rated = row(completion("a", 6.0, 4), completion("b", 8.5, 5), completion("c", 6.0, 3), completion("d", 3, 2))
    assert read(rated) == [
        Demonstration(PROMPT, "b"),
        Ranking(PROMPT, ("a", "b", "c", "d"), (1, 0, 1, 2), margins=(6.0, 8.5, 6.0, 3.0)),
    ]


def test_two_best_demonstrate_nothing() -> None:
    ranked = Ranking(PROMPT, ("a", "b", "c"), (0, 0, 1), margins=(8.0, 8.0, 1.0))
    assert read(row(completion("a", 8), completion("b", 8), completion("c", 1))) == [ranked]


@pytest.mark.parametrize("fine", [{}, {"fine-grained_score": 1.5}])
def test_a_ten_for_what_was_rated_badly_is_a_one(fine: dict[str, float]) -> None:
    ranked = read(row(completion("bad", 10, 1, 2, 1, 2, **fine), completion("fair", 7, 4)))
    assert ranked == [
        Demonstration(PROMPT, "fair"),
        Ranking(PROMPT, ("bad", "fair"), (1, 0), margins=(1.0, 7.0)),
    ]


@pytest.mark.parametrize("fine", [{}, {"fine-grained_score": 4.75}])
def test_a_ten_for_what_was_rated_well_stays(fine: dict[str, float]) -> None:
    ranked = read(row(completion("good", 10, 5, 5, 5, 4, **fine), completion("fair", 7, 4)))
    assert ranked[0] == Demonstration(PROMPT, "good")


def test_a_ten_in_doubt_is_left_out_of_the_old_file_and_stays_in_the_corrected_one() -> None:
    others = (completion("fair", 7, 4), completion("poor", 3, 2))
    old = read(row(completion("doubted", 10, 3, "N/A", 4, 3), *others))
    assert old == [Demonstration(PROMPT, "fair"), Ranking(PROMPT, ("fair", "poor"), (0, 1), margins=(7.0, 3.0))]
    corrected = read(row(completion("doubted", 10, 3, 3, 4, 3, **{"fine-grained_score": 3.25}), *others))
    assert corrected[0] == Demonstration(PROMPT, "doubted")


def test_a_ten_that_nothing_contradicts_stays() -> None:
    assert read(row(completion("good", 10, "N/A"), completion("fair", 7)))[0] == Demonstration(PROMPT, "good")


def test_a_completion_without_text_is_left_out() -> None:
    ranked = Ranking(PROMPT, ("a", "c"), (1, 0), margins=(2.0, 4.0))
    assert read(row(completion("a", 2), completion(" ", 5), completion("c", 4)))[-1] == ranked


def test_binarized_rows_are_pairs_with_their_scores() -> None:
    prompt = Prompt("ultrafeedback:ab12", (Message(Role.user, "What?"),))
    assert read(binarized()) == [
        Demonstration(prompt, "That."),
        Ranking(prompt, ("That.", "This."), (0, 1), margins=(8.5, 6.0)),
    ]
    assert read(binarized(score_rejected=8.5)) == [
        Ranking(prompt, ("That.", "This."), (0, 0), margins=(8.5, 8.5)),
    ]


@pytest.mark.parametrize(
    ("odd", "problem"),
    [
        (row(completion("a", 2)), "a ranking needs 2 or more completions, and it has 1"),
        (row(), "a ranking needs 2 or more completions, and it has 0"),
        (row(completion("a", 2), "b"), r"`completions\[1\]` is not \{model, response, overall_score\}"),
        (row(completion("a", 2), completion("b", None)), "`overall_score` is 'None', not a number"),
        (row(completion("a", 2), completion("a", 3)), "its completions are the same"),
        ({"instruction": "a"}, "`completions` is not a list"),
        ({**row(completion("a", 1), completion("b", 2)), "instruction": ""}, "`instruction` is empty"),
        (binarized(score_chosen=1.0), "`score_chosen` is 1, less than `score_rejected`, 6"),
        (binarized(score_chosen=None), "`score_chosen` is 'None', not a number"),
        (binarized(chosen="That."), "`chosen` is not a list of turns"),
        (
            binarized(rejected=[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So."}]),
            "they answer different prompts",
        ),
        (
            binarized(rejected=[{"role": "user", "content": "What?"}, {"role": "assistant", "content": ""}]),
            r"`rejected\[1\]` is empty or whitespace",
        ),
    ],
)
def test_odd_rows_are_refused(odd: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(odd)

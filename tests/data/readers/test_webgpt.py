from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.webgpt import read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role


def row(**changed: Any) -> dict[str, Any]:
    return {
        "question": {"dataset": "eli5", "id": "4wtc9h", "full_text": "Why is the sky blue?"},
        "quotes_0": {"title": ["Sky (example.org)"], "extract": ["Air scatters blue light."]},
        "answer_0": "Air scatters blue light more [1].",
        "tokens_0": {"prefix": [1, 2], "completion": [3]},
        "score_0": 0.75,
        "quotes_1": {"title": [], "extract": []},
        "answer_1": "Nobody knows.",
        "tokens_1": {"prefix": [1, 2], "completion": [4]},
        "score_1": -0.75,
        **changed,
    }


PROMPT = Prompt("webgpt:eli5:4wtc9h", (Message(Role.user, "Why is the sky blue?"),), "eli5")
ANSWERS = ("Air scatters blue light more [1].", "Nobody knows.")


def test_answers_rank_by_score_with_citations_and_without_quotes_in_the_prompt() -> None:
    assert read(row()) == [
        Demonstration(PROMPT, ANSWERS[0]),
        Ranking(PROMPT, ANSWERS, (0, 1), margins=(0.75, -0.75)),
    ]
    assert read(row(score_0=-0.25, score_1=0.25))[0] == Demonstration(PROMPT, ANSWERS[1])


def test_equal_scores_tie_and_demonstrate_nothing() -> None:
    assert read(row(score_0=0.0, score_1=0.0)) == [Ranking(PROMPT, ANSWERS, (0, 0), margins=(0.0, 0.0))]


def test_a_question_without_an_id_of_its_own_gets_none() -> None:
    ranked = read(row(question={"full_text": "Why?", "dataset": "eli5", "id": None}))[-1]
    assert isinstance(ranked, Ranking)
    assert ranked.prompt.id == ""


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"question": "Why?"}, r"`question` is not \{full_text, dataset, id\}"),
        ({"question": {"full_text": " "}}, "`full_text` is empty or whitespace"),
        ({"score_0": None}, "`score_0` is 'None', not a number"),
        ({"score_0": float("nan")}, "`score_0` is 'nan', not a number"),
        ({"score_1": 3}, "`score_1` is 3, and scores are from -1 to 1"),
        ({"answer_1": ""}, "`answer_1` is empty or whitespace"),
        ({"answer_1": ANSWERS[0]}, "its completions are the same"),
    ],
)
def test_odd_comparisons_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row(**changed))

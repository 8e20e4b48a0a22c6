from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.jsonl import read
from rlhf.data.records import BadRowError, Demonstration, Document, Prompt, Ranking, Role

USER = [{"role": "user", "content": "why?"}]
TALK = [*USER, {"role": "assistant", "content": "because"}]
SHARED = [{"from": "system", "value": "Be kind."}, {"from": "human", "value": "why?"}, {"from": "gpt", "value": "so"}]


def asked(row: dict[str, Any]) -> list[tuple[Role, str]]:
    record = read(row)[0]
    assert not isinstance(record, Document)
    prompt = record if isinstance(record, Prompt) else record.prompt
    return [(message.role, message.content) for message in prompt.messages]


@pytest.mark.parametrize(
    ("row", "response"),
    [
        ({"prompt": "why?", "response": " because "}, "because"),
        ({"prompt": "why?", "completion": "because<|endoftext|>"}, "because"),
        ({"prompt": USER, "response": "because"}, "because"),
        ({"prompt": USER, "completion": "because"}, "because"),
        ({"messages": USER, "response": "because"}, "because"),
        ({"messages": TALK}, "because"),
        ({"conversations": SHARED[1:]}, "so"),
        ({"conversations": [*SHARED[1:], {"from": "human", "value": "thanks"}]}, "so"),
        ({"conversations": [{"from": "user", "value": "why?"}, {"from": "chatgpt", "value": "so"}]}, "so"),
        ({"conversations": ["why?", "so"], "source": "multi_turn"}, "so"),
        ({"conversations": SHARED[1:2], "response": "so"}, "so"),
        ({"instruction": "why?", "output": "because"}, "because"),
        ({"instruction": "why?", "input": "", "output": "because"}, "because"),
        ({"instruction": "why?", "context": "", "response": "because", "category": "qa"}, "because"),
        ({"inputs": "why?", "targets": "because"}, "because"),
        ({"prompt": "why?", "response": "None"}, "None"),
    ],
)
def test_each_shape_of_a_demonstration_is_recognised(row: dict[str, Any], response: str) -> None:
    records = read(row)
    assert [type(record) for record in records] == [Demonstration]
    assert asked(row) == [(Role.user, "why?")]
    assert records[0].response == response  # type: ignore[union-attr]


@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "why?", "chosen": "good", "rejected": "bad"},
        {"chosen": "\n\nHuman: why?\n\nAssistant: good", "rejected": "\n\nHuman: why?\n\nAssistant: bad"},
        {
            "chosen": [*USER, {"role": "assistant", "content": "good"}],
            "rejected": [*USER, {"role": "assistant", "content": "bad"}],
        },
        {
            "prompt": USER,
            "chosen": [{"role": "assistant", "content": "good"}],
            "rejected": [{"role": "assistant", "content": "bad"}],
        },
        {
            "prompt": "why?",
            "chosen": [*USER, {"role": "assistant", "content": "good"}],
            "rejected": [*USER, {"role": "assistant", "content": "bad"}],
        },
        {"prompt": "why?", "completions": ["bad", "good"], "ranks": [1, 0]},
        {"prompt": "why?", "completions": ["bad", "good"], "scores": [-1, 3.5]},
    ],
)
def test_each_shape_of_a_ranking_is_recognised(row: dict[str, Any]) -> None:
    ranking = next(record for record in read(row) if isinstance(record, Ranking))
    assert ranking.completions[ranking.ranks.index(0)] == "good"
    assert set(ranking.completions) == {"good", "bad"}
    assert asked(row) == [(Role.user, "why?")]


def test_a_chosen_response_is_a_demonstration_too_and_a_ranked_one_is_not() -> None:
    pair = read({"prompt": "why?", "chosen": "good", "rejected": "bad"})
    assert [record.response for record in pair if isinstance(record, Demonstration)] == ["good"]
    assert [type(r) for r in read({"prompt": "why?", "completions": ["a", "b"], "ranks": [0, 1]})] == [Ranking]


def test_equal_scores_tie_and_scores_are_margins() -> None:
    (ranking,) = read({"prompt": "why?", "completions": ["a", "b", "c"], "scores": [2, 5, 2]})
    assert isinstance(ranking, Ranking)
    assert ranking.ranks == (1, 0, 1)
    assert ranking.margins == (2.0, 5.0, 2.0)


def test_system_id_task_and_user_are_kept() -> None:
    (record,) = read({"system": "Be brief.", "prompt": "why?", "response": "so", "id": 7, "task": "t", "user": "u"})
    assert isinstance(record, Demonstration)
    assert [m.role for m in record.prompt.messages] == [Role.system, Role.user]
    assert (record.prompt.id, record.prompt.task, record.prompt.user) == ("7", "t", "u")
    assert asked({"conversations": SHARED})[0] == (Role.system, "Be kind.")


def test_a_row_may_be_demonstration_and_ranking_at_once() -> None:
    records = read({"prompt": "why?", "response": "so", "completions": ["a", "b"], "ranks": [0, 1]})
    assert [type(record) for record in records] == [Demonstration, Ranking]


def test_a_prompt_alone_and_text_alone_are_records() -> None:
    assert asked({"prompt": "why?"}) == asked({"messages": USER}) == [(Role.user, "why?")]
    assert read({"text": " words "}) == [Document("words")]


def test_columns_of_no_known_shape_are_named_with_the_keys_to_set() -> None:
    with pytest.raises(BadRowError) as refused:
        read({"question": "why?", "reply": "so"})
    assert "`question`, `reply`" in str(refused.value)
    assert "data.columns.prompt=COLUMN" in refused.value.remedy


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "its columns are none"),
        ({"prompt": "a", "response": " \n"}, "`response` is empty or whitespace"),
        ({"prompt": "a", "response": 3}, "no text under `response`"),
        ({"prompt": "a", "response": "</s>"}, "nothing but an end token"),
        ({"prompt": " ", "response": "b"}, "`prompt` is empty or whitespace"),
        ({"prompt": 3, "response": "b"}, "no text under `prompt`"),
        ({"prompt": "a", "completions": ["b"], "ranks": [0]}, "needs 2 or more completions, and it has 1"),
        ({"prompt": "a", "completions": ["b", " "], "ranks": [0, 1]}, "completion 1 is empty"),
        ({"prompt": "a", "completions": ["b", "b "], "ranks": [0, 1]}, "completions are the same"),
        ({"prompt": "a", "completions": "bc", "ranks": [0, 1]}, "`completions` is not a list of texts"),
        ({"prompt": "a", "completions": ["b", "c"]}, "`ranks` is not a list of 2"),
        ({"prompt": "a", "completions": ["b", "c"], "ranks": [0, "1"]}, "`ranks` is not a list of 2"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1, "x"]}, "`scores[1]` is 'x', not a number"),
        ({"prompt": "a", "completions": ["b", "c"], "scores": [1, float("nan")]}, "not a number"),
        ({"prompt": "a", "completions": ["b", "c"], "ranks": [0, 1], "margins": [1]}, "`margins` is not a list of 2"),
        ({"messages": {}, "response": "b"}, "`messages` is not a list of turns"),
        ({"messages": [{"role": "bot", "content": "x"}], "response": "b"}, "has the role 'bot', none of system, user"),
        ({"messages": TALK, "response": "b"}, "ends with the assistant's turn, and there is a response beside it"),
        ({"messages": [*USER, *USER], "response": "b"}, "are both the user's"),
        ({"prompt": "a", "chosen": "b", "rejected": "b"}, "completions are the same"),
        ({"chosen": TALK, "rejected": [{"role": "user", "content": "?"}, TALK[1]]}, "answer different prompts"),
        ({"text": "  "}, "`text` is empty"),
    ],
)
def test_an_odd_row_says_what_is_wrong(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError) as refused:
        read(row)
    assert problem in str(refused.value)

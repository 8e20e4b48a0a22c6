from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers import lima, openhermes, sharegpt, slimorca, ultrachat
from rlhf.data.records import BadRowError, Demonstration, Prompt


def turns(*said: str) -> list[dict[str, Any]]:
    """ "human: hello" -> {from, value}."""
    return [dict(zip(("from", "value"), turn.split(": ", 1), strict=True)) for turn in said]


def written(record: Demonstration) -> list[str]:
    return [*(f"{m.role.value}: {m.content}" for m in record.prompt.messages), f"-> {record.response}"]


def test_sharegpt_chat_is_answered_by_its_last_turn_and_keeps_its_id() -> None:
    [record] = sharegpt.read({"id": "QWJhYvA_0", "conversations": turns("human: a", "gpt: b", "human: c", "gpt: d")})
    assert written(record) == ["user: a", "assistant: b", "user: c", "-> d"]
    assert record.prompt.id == "sharegpt:QWJhYvA_0"


def test_sharegpt_chat_that_ends_with_the_user_ends_at_the_last_answer() -> None:
    [record] = sharegpt.read({"id": "x", "conversations": turns("human: a", "gpt: b", "human: c")})
    assert written(record) == ["user: a", "-> b"]


def test_answers_before_the_first_question_are_skipped_and_the_system_turn_is_kept() -> None:
    [record] = sharegpt.read({"conversations": turns("system: s", "gpt: rest of it", "human: a", "chatgpt: b")})
    assert written(record) == ["system: s", "user: a", "-> b"]
    assert record.prompt.id == ""


@pytest.mark.parametrize(
    ("conversations", "problem"),
    [
        (turns("human: a", "human: b", "gpt: c"), "`conversations` has two turns of the user's in a row"),
        (turns("human: a", "gpt: b", "gpt: c"), "`conversations` has two turns of the assistant's in a row"),
        (turns("human: a"), "`conversations` has no turn of the assistant"),
        (turns("gpt: a"), "`conversations` has no turn of the assistant"),
        (turns("human: a", "tool: b"), r"`conversations\[1\]` has the from 'tool'"),
        (turns("human: a", "system: s", "human: b", "gpt: c"), "system turn, which only the first can be"),
        ([{"from": "human", "value": "a"}, {"from": "gpt", "value": ""}], r"`conversations\[1\]` is empty"),
        ([{"from": "system", "value": ""}], r"`conversations\[1:\]` is not a list of turns"),
        ([], "`conversations` is not a list of turns"),
        ("human: a", "`conversations` is not a list of turns"),
        (None, "`conversations` is not a list of turns"),
    ],
)
def test_chat_with_turns_missing_or_unknown_is_refused(conversations: Any, problem: str) -> None:
    for module in (sharegpt, slimorca, openhermes):
        with pytest.raises(BadRowError, match=problem):
            module.read({"conversations": conversations})


def test_slimorca_row_has_its_system_prompt_and_a_blank_one_is_left_out() -> None:
    weighted = [
        {"from": "system", "value": "You are an AI assistant.", "weight": None},
        {"from": "human", "value": "Write a headline.", "weight": 0.0},
        {"from": "gpt", "value": "Rain at last", "weight": 1.0},
    ]
    [record] = slimorca.read({"conversations": weighted})
    assert written(record) == ["system: You are an AI assistant.", "user: Write a headline.", "-> Rain at last"]
    blank = [{**weighted[0], "value": " "}, *weighted[1:]]
    assert written(slimorca.read({"conversations": blank})[0]) == ["user: Write a headline.", "-> Rain at last"]


def test_openhermes_takes_the_system_prompt_of_the_row_unless_the_conversation_has_one() -> None:
    row = {"category": "trivia", "system_prompt": "Be brief.", "source": "airoboros2.2", "title": None}
    [record] = openhermes.read({**row, "conversations": turns("human: a", "gpt: b")})
    assert written(record) == ["system: Be brief.", "user: a", "-> b"]
    assert record.prompt.task == "trivia"
    [own] = openhermes.read({**row, "conversations": turns("system: s", "human: a", "gpt: b")})
    assert written(own) == ["system: s", "user: a", "-> b"]


def test_openhermes_1_has_alpacas_columns() -> None:
    [record] = openhermes.read({"instruction": "Sort.", "input": "3 1", "output": "1 3"})
    assert written(record) == ["user: Sort.\n\n3 1", "-> 1 3"]


def test_lima_texts_alternate_and_the_source_is_the_task() -> None:
    [record] = lima.read({"conversations": ["a", "b"], "source": "stackexchange"})
    assert isinstance(record, Demonstration)
    assert written(record) == ["user: a", "-> b"]
    assert record.prompt.task == "stackexchange"
    [dialogue] = lima.read({"conversations": ["a", "b", "c", "d", "e"], "source": "multi_turn"})
    assert isinstance(dialogue, Demonstration)
    assert written(dialogue) == ["user: a", "assistant: b", "user: c", "-> d"]


def test_lima_row_without_an_answer_is_a_prompt() -> None:
    [record] = lima.read({"conversations": ["Plan a day in Kyoto."], "source": "paper_authors_test"})
    assert isinstance(record, Prompt)
    assert record.messages[0].content == "Plan a day in Kyoto."


def test_ultrachat_200k_row_keeps_its_prompt_id() -> None:
    messages = [{"role": r, "content": c} for r, c in [("user", "a"), ("assistant", "b"), ("user", "c")]]
    [record] = ultrachat.read({"prompt": "a", "prompt_id": "f0e3", "messages": messages})
    assert written(record) == ["user: a", "-> b"]
    assert record.prompt.id == "ultrachat:f0e3"


def test_original_ultrachat_texts_alternate() -> None:
    [record] = ultrachat.read({"id": "0", "data": ["a", "b", "c", "d"]})
    assert written(record) == ["user: a", "assistant: b", "user: c", "-> d"]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({}, "it has neither `messages` nor `data`"),
        ({"data": ["a"]}, "`data` has no turn of the assistant"),
        ({"data": ["a", " "]}, r"`data\[1\]` is empty or whitespace"),
        ({"data": ["a", None]}, r"`data\[1\]` is not text"),
        ({"data": []}, "`data` is not a list of texts"),
        ({"messages": [{"role": "bot", "content": "a"}]}, r"`messages\[0\]` has the role 'bot'"),
    ],
)
def test_ultrachat_row_without_a_dialogue_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        ultrachat.read(row)

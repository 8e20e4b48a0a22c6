"""Rows of one's own under other names: what people rejected is never learned, and what is empty is not there."""

from __future__ import annotations

import json
import logging
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName, OnBadRow
from rlhf.data.readers.jsonl import read
from rlhf.data.records import BadRowError, Demonstration, Document, Prompt, Ranking, Role, Split, no_sampler
from rlhf.errors import UserError

TALK = [{"from": "human", "value": "a fruit"}, {"from": "gpt", "value": "Apple."}, {"from": "human", "value": "More?"}]


def turns(record: Any) -> list[tuple[str, str]]:
    prompt = record if isinstance(record, Prompt) else record.prompt
    return [(message.role.value, message.content) for message in prompt.messages]


def ranked(record: Any) -> list[str]:
    """Completions, the best first."""
    assert isinstance(record, Ranking)
    return [text for _, text in sorted(zip(record.ranks, record.completions, strict=True))]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"conversations": TALK, "chosen": TALK[1], "rejected": {"from": "gpt", "value": "Rock."}}, "More?"),
        ({"messages": [{"role": "user", "content": "q"}], "chosen": "Apple.", "rejected": "Rock."}, "q"),
        ({"instruction": "Name", "input": "a fruit", "chosen": "Apple.", "rejected": "Rock."}, "Name\n\na fruit"),
        ({"question": "q", "chosen": "Apple.", "rejected": "Rock."}, "q"),
        ({"prompt": "q", "response_1": "Apple.", "response_2": "Rock.", "preference_strength": -2}, "q"),
        ({"prompt": "q", "response_1": "Rock.", "response_2": "Apple.", "preference_strength": 1}, "q"),
        ({"chosen": "I eat an Apple.", "rejected": "I eat an Rock."}, "I eat an"),
        (
            {
                "prompt": "\n\nHuman: q\n\nAssistant: ",
                "answers": [{"answer": "Rock.", "rank": 2.0}, {"answer": "Apple.", "rank": 1.0}],
            },
            "q",
        ),
    ],
)
def test_a_preference_is_read_whatever_its_columns_are_called(row: dict[str, Any], asked: str) -> None:
    found = read(row)
    (ranking,) = [record for record in found if isinstance(record, Ranking)]
    assert ranked(ranking) == ["Apple.", "Rock."]
    assert turns(ranking)[-1] == ("user", asked)
    assert not [record for record in found if isinstance(record, Demonstration) and record.response != "Apple."]


def test_a_whole_conversation_is_the_prompt_and_a_system_turn_stays() -> None:
    pair = read({"conversations": TALK, "chosen": {"role": "assistant", "content": "Pear."}, "rejected": "Rock."})[0]
    assert [role for role, _ in turns(pair)] == ["user", "assistant", "user"]
    asked = read({"system": "Be exact.", "question": "q", "chosen": "4", "rejected": "5"})[0]
    assert turns(asked) == [("system", "Be exact."), ("user", "q")]


def test_a_strength_is_the_margin() -> None:
    row = {"prompt": "q", "response_1": "a", "response_2": "b", "preference_strength": -2}
    (pair,) = read(row)
    assert isinstance(pair, Ranking)
    assert pair.margins == (2.0, 0.0)
    (tie,) = read({**row, "preference_strength": 0})
    assert isinstance(tie, Ranking)
    assert tie.ranks == (0, 0)


MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "Go away."}]


@pytest.mark.parametrize("row", [{"prompt": "q", "completion": "Go away."}, {"messages": MESSAGES}])
@pytest.mark.parametrize("label", ["label", "kto_tag"])
def test_a_response_that_was_rejected_is_not_learned(row: dict[str, Any], label: str) -> None:
    assert isinstance(read({**row, label: True})[0], Demonstration)
    with pytest.raises(BadRowError, match=rf"`{label}` is false, so its response was rejected"):
        read({**row, label: False})


@pytest.mark.parametrize("column", ["reward", "Score", "rating", "label", "winner", "weight", "rank", "helpfulness"])
@pytest.mark.parametrize(
    "row",
    [
        {"prompt": "q", "response": "a"},
        {"messages": MESSAGES},
        {"instruction": "q", "output": "a"},
        {"conversations": TALK[:2]},
        {"prompt": "q", "chosen": "a", "rejected": "b"},
    ],
)
def test_a_judgement_that_nobody_reads_refuses_the_row(row: dict[str, Any], column: str) -> None:
    assert read(row)
    with pytest.raises(BadRowError, match=rf"`{column}`, which sounds like a judgement") as refused:
        read({**row, column: 1})
    assert f"data.ignore=[{column}]" in refused.value.remedy


def test_null_empty_and_absent_are_one() -> None:
    nothing = {"response": None, "chosen": None, "rejected": None, "messages": [], "text": None, "prompt": None}
    assert isinstance(read({**nothing, "prompt": "q", "response": "a"})[0], Demonstration)
    assert isinstance(read({**nothing, "prompt": "q", "chosen": "a", "rejected": "b"})[0], Ranking)
    assert isinstance(read({**nothing, "messages": MESSAGES})[0], Demonstration)
    assert isinstance(read({**nothing, "prompt": "q"})[0], Prompt)
    assert read({**nothing, "text": "words"}) == [Document("words")]


@pytest.mark.parametrize(
    "row",
    [
        {"messages": [{"role": "User", "content": "One?"}, {"role": "Assistant", "content": "Two."}]},
        {"messages": [{"role": "human", "content": "One?"}, {"role": "gpt", "content": "Two."}]},
        {"messages": [{"from": "human", "value": "One?"}, {"from": "gpt", "value": "Two."}]},
        {"conversations": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]},
        {"conversation": [{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}]},
        {"messages": [{"role": "system", "content": ""}, {"role": "user", "content": "One?"}], "response": "Two."},
        {"messages": json.dumps([{"role": "user", "content": "One?"}, {"role": "assistant", "content": "Two."}])},
        {"prompt": [{"role": "user", "content": "One?"}], "completion": [{"role": "assistant", "content": "Two."}]},
        {
            "messages": [{"role": "user", "content": [{"type": "text", "text": "One"}, {"type": "text", "text": "?"}]}],
            "response": "Two.",
        },
        {"question": "One?", "answer": "Two."},
    ],
)
def test_other_names_for_the_same_conversation(row: dict[str, Any]) -> None:
    (found,) = read(row)
    assert isinstance(found, Demonstration)
    assert (turns(found), found.response) == ([("user", "One?")], "Two.")


def test_a_developer_is_the_system_and_a_weight_of_0_and_an_image_are_refused() -> None:
    told = [{"role": "developer", "content": "Be brief."}, *MESSAGES]
    assert turns(read({"messages": told})[0])[0] == (Role.system.value, "Be brief.")
    with pytest.raises(BadRowError, match=r"`messages\[1\]` has the weight 0"):
        read({"messages": [MESSAGES[0], {**MESSAGES[1], "weight": 0}]})
    with pytest.raises(BadRowError, match=r"`messages\[0\]` has a part of type 'image_url'"):
        read({"messages": [{"role": "user", "content": [{"type": "image_url"}]}, MESSAGES[1]]})


def test_code_keeps_its_first_line_s_indentation_and_a_closing_tag_is_no_end_token() -> None:
    (code,) = read({"prompt": "go on", "response": "\n    y = x\n    return y\n"})
    assert isinstance(code, Demonstration)
    assert code.response == "    y = x\n    return y"
    (tag,) = read({"prompt": "strike", "response": "<s>old</s>"})
    assert isinstance(tag, Demonstration)
    assert tag.response == "<s>old</s>"
    (spaced,) = read({"prompt": "q", "response": " blue.</s>"})
    assert isinstance(spaced, Demonstration)
    assert spaced.response == "blue."


def test_texts_without_a_common_beginning_say_so() -> None:
    with pytest.raises(BadRowError, match="no words in common"):
        read({"chosen": "blue", "rejected": "loud"})


def source(tmp_path: Path, rows: list[Any], **settings: Any) -> Any:
    path = tmp_path / "own.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(source=DataSourceName.jsonl, path=str(path), cache=str(tmp_path / "cache"), **settings)
    return load_source(config, 0, tmp_path / "bad.jsonl")


def test_rows_of_one_prompt_with_a_number_each_are_one_ranking(tmp_path: Path) -> None:
    beside = {"correctness": 4, "coherence": 4, "complexity": 1, "verbosity": 1}
    rows = [
        {"prompt": f"{i}?", "response": text, "helpfulness": worth, **beside}
        for i in range(20)
        for text, worth in (("no", 0), ("yes", 4))
    ]
    found = source(tmp_path, rows)
    rankings = [r for split in Split for r in found.rankings(split, no_sampler)]
    assert len(rankings) == 20
    assert {tuple(ranked(ranking)) for ranking in rankings} == {("yes", "no")}
    assert not [d for d in found.demonstrations(Split.train) if d.response == "no"]


def test_a_number_for_one_response_alone_refuses_the_file_until_it_is_said_to_mean_nothing(tmp_path: Path) -> None:
    rows = [{"prompt": f"{i}?", "response": "d-o-g", "reward": -1.0} for i in range(20)]
    with pytest.raises(UserError, match=r"`reward`.*data\.ignore=\[reward\]"):
        source(tmp_path, rows)
    kept = source(tmp_path, rows, ignore=["reward"])
    assert len(kept.demonstrations(Split.train)) + len(kept.demonstrations(Split.evaluation)) == 20


def test_half_a_character_alone_on_a_line_is_a_bad_row(tmp_path: Path) -> None:
    rows = [*({"prompt": f"{i}?", "response": "a"} for i in range(20)), "cut \ud83d"]
    found = source(tmp_path, rows, on_bad_row=OnBadRow.skip)
    assert len(found.demonstrations(Split.train)) > 10
    assert "ud83d" in (tmp_path / "bad.jsonl").read_text()


def test_columns_that_nothing_reads_are_named_with_a_count_each_time(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rows = [{"prompt": f"{i}?", "response": "a", "topic": "x", "note": None, "mine": 1} for i in range(20)]
    rows += [{"prompt": f"{i}!", "response": "a", "source_url": "y"} for i in range(5)]
    for _ in range(2):  # read, and found in the cache
        caplog.clear()
        with caplog.at_level(logging.INFO, logger="rlhf"):
            source(tmp_path, rows, ignore=["mine"])
        assert "columns that nothing reads: topic (in 20 rows), source_url (in 5 rows)" in caplog.text


def test_alpacas_system_and_history_are_part_of_the_conversation() -> None:
    row = {"instruction": "And now?", "output": "c", "system": "Be brief.", "history": [["Hi", "a"], ["Well?", "b"]]}
    (found,) = read(row)
    said = [("user", "Hi"), ("assistant", "a"), ("user", "Well?"), ("assistant", "b"), ("user", "And now?")]
    assert turns(found) == [("system", "Be brief."), *said]
    assert turns(read({**row, "history": [], "system": None})[0]) == [("user", "And now?")]
    with pytest.raises(BadRowError, match=r"`history\[0\]` is not \[instruction, answer\]"):
        read({**row, "history": [["Hi"]]})

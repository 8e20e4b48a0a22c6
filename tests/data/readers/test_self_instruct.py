from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.readers.self_instruct import read
from rlhf.data.records import BadRowError, Demonstration

FOLDER = Path("/work/shared/data/self_instruct")
SEED = {
    "id": "seed_task_1",
    "name": "antonym_relation",
    "instruction": "What is the relation?",
    "instances": [{"input": "Night : Day", "output": "They are opposite."}, {"input": "", "output": "None."}],
    "is_classification": False,
}


def pairs(records: list[Demonstration]) -> list[tuple[str, str]]:
    return [(record.prompt.messages[0].content, record.response) for record in records]


def generated(raw: str, finish_reason: str = "stop") -> dict[str, Any]:
    metadata = {"response": {"choices": [{"text": raw, "finish_reason": finish_reason}]}}
    return {
        "instruction": "Sort it.",
        "raw_instances": raw,
        "instance_metadata": metadata,
        "instruction_metadata": {},
        "most_similar": {"Order it.": 0.6},
        "avg_similarity_score": 0.1,
    }


def test_each_instance_is_a_demonstration_with_an_id_of_its_own() -> None:
    records = read(SEED)
    assert pairs(records) == [
        ("What is the relation?\n\nNight : Day", "They are opposite."),
        ("What is the relation?", "None."),
    ]
    assert [record.prompt.id for record in records] == ["self_instruct:seed_task_1:0", "self_instruct:seed_task_1:1"]
    assert {record.prompt.task for record in records} == {"antonym_relation"}


def test_task_of_a_user_oriented_instruction_is_its_application() -> None:
    row = {
        "id": "user_oriented_task_0",
        "motivation_app": "Grammarly",
        "instruction": "Shorten.",
        "instances": [{"input": "It is the case that so.", "output": "So."}],
    }
    [record] = read(row)
    assert (record.prompt.task, record.response) == ("Grammarly", "So.")


def test_generated_instance_has_alpacas_columns() -> None:
    assert pairs(read({"instruction": "Sort it.", "input": "2 1", "output": "1 2"})) == [("Sort it.\n\n2 1", "1 2")]


def test_fine_tuning_row_loses_its_end_token() -> None:
    row = {"prompt": "Sort it.\nInput: 2 1\nOutput:", "completion": " 1 2<|endoftext|>"}
    assert pairs(read(row)) == [("Sort it.\nInput: 2 1\nOutput:", "1 2")]


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        ("Output: 1 2", [("Sort it.", "1 2")]),
        ("Example 1\nList: 2 1\nOutput: 1 2\nExample 2\nInput 2 - List: 3 1\nOutput: 1 3",
         [("Sort it.\n\nList: 2 1", "1 2"), ("Sort it.\n\nInput 2 - List: 3 1", "1 3")]),
        ("Example 1\nInput: 2 1\nOutput: 1 2\nInput: 9 8", [("Sort it.\n\n2 1", "1 2")]),
        ("Class label: even\nNumber: 2\nClass label: odd\nNumber: 3",
         [("Sort it.\n\nNumber: 2", "even"), ("Sort it.\n\nNumber: 3", "odd")]),
        ("Class label: odd", [("Sort it.", "odd")]),
        ("Example 1\nInput: a\nOutput: a\nExample 2\nInput: b\nOutput: c", [("Sort it.\n\nb", "c")]),
    ],
)  # fmt: skip
def test_raw_generation_is_taken_apart(raw: str, expected: list[tuple[str, str]]) -> None:
    assert pairs(read(generated(raw))) == expected


def test_instance_cut_by_the_token_limit_is_left_out() -> None:
    raw = "Example 1\nInput: 2 1\nOutput: 1 2\nExample 2\nInput: 3 2\nOutput: 2"
    assert len(read(generated(raw))) == 2
    assert pairs(read(generated(raw, "length"))) == [("Sort it.\n\n2 1", "1 2")]


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({**SEED, "instances": []}, "it has no `instances`, so no response"),
        ({**SEED, "instances": ["a"]}, r"`instances\[0\]` is not \{input, output\}"),
        ({**SEED, "instances": [{"output": "a"}, {"output": ""}]}, r"in `instances\[1\]`, `output` is empty"),
        ({**SEED, "instruction": ""}, "`instruction` is empty"),
        ({"instruction": "a"}, "it has no response: none of"),
        ({"instruction": "a", "output": ""}, "`output` is empty"),
        (generated(" "), "`raw_instances` is empty"),
        (generated("nothing of the kind"), "no whole instance"),
        (generated("Output: and so on:"), "no whole instance"),
        (generated("Example 1\nInput: a\nOutput: b\nExample 2\nInput: a\nOutput: c"), "answers one input in two ways"),
    ],
)
def test_row_without_a_response_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row)


@pytest.mark.skipif(not FOLDER.exists(), reason="the real files are not on this machine")
@pytest.mark.parametrize(("name", "count"), [("seed_tasks.jsonl", 175), ("user_oriented_instructions.jsonl", 252)])
def test_every_row_of_the_real_files_is_a_demonstration(name: str, count: int) -> None:
    rows = [json.loads(line) for line in (FOLDER / name).read_text(encoding="utf-8").split("\n") if line]
    records = [record for row in rows for record in read(row)]
    assert (len(rows), len(records)) == (count, count)
    assert len({record.prompt.id for record in records}) == count
    for row, record in zip(rows, records, strict=True):
        [instance] = row["instances"]
        assert record.response == instance["output"].strip()
        assert record.prompt.messages[0].input == instance["input"].strip()
        assert record.prompt.task == row.get("name", row.get("motivation_app"))

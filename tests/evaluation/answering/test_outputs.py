from __future__ import annotations

import csv
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName
from rlhf.data.readers.fields import user_prompt
from rlhf.data.records import Split
from rlhf.errors import UserError
from rlhf.evaluation.answering.outputs import Output, answered, fingerprints, require_files
from tests.support.fakes import prompt

ALPACA = dataclasses.replace(user_prompt("Sort these.", "b a"), id="alpaca:1")
PROMPTS = [prompt("one", 0), prompt("two", 1), ALPACA]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text("\n".join(json.dumps(row) for row in rows))
    return str(path)


def read(path: str, name: str = "a") -> dict[str, Output]:
    _, found, _ = answered({name: path}, PROMPTS)
    return found[name]


@pytest.mark.parametrize(
    ("row", "asked"),
    [
        ({"instruction": "Sort these.", "input": "b a", "output": " x ", "generator": "g"}, "alpaca:1"),
        ({"instruction": "one", "output": "x"}, "test:0"),
        ({"instruction": "one", "input": None, "output": "x"}, "test:0"),
        ({"prompt": "two", "response": "x"}, "test:1"),
        ({"prompt": "two", "completion": "x<|endoftext|>"}, "test:1"),
        ({"prompt": [{"role": "user", "content": "two"}], "output": "x"}, "test:1"),
        ({"messages": [{"role": "user", "content": "two"}], "output": "x"}, "test:1"),
        ({"id": "test:1", "response": "x"}, "test:1"),
        ({"id": 7, "prompt": "two", "response": "x"}, "test:1"),
        ({"id": "test:0", "prompt": "two", "response": "x"}, "test:1"),  # the words count, where both are there
    ],
)
def test_rows_are_matched_by_id_or_by_the_prompts_text(tmp_path: Path, row: dict[str, Any], asked: str) -> None:
    assert read(write(tmp_path / "o.jsonl", [row])) == {asked: Output("x", True)}


def test_a_table_is_read_as_well(tmp_path: Path) -> None:
    with (tmp_path / "o.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["prompt", "response"], ["one", "None"], ["two", 'a "b"\nc']])
    assert read(str(tmp_path / "o.csv")) == {"test:0": Output("None", True), "test:1": Output('a "b"\nc', True)}


def test_an_empty_answer_is_one_and_null_is_none(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", [{"prompt": "one", "response": ""}, {"prompt": "two", "response": None}])
    assert read(path) == {"test:0": Output("", True)}


def responses(tmp_path: Path) -> str:
    given = {"sft": {"response": "s", "ended": True}, "ppo": {"response": "p", "ended": False}}
    turns = [{"role": "user", "content": "one"}]
    return write(tmp_path / "responses.jsonl", [{"id": "test:0", "messages": turns, "candidates": given}])


def test_a_comparisons_own_responses_are_read_by_the_candidates_name(tmp_path: Path) -> None:
    path = responses(tmp_path)
    assert read(f"{path}@ppo") == {"test:0": Output("p", False)}
    assert read(path, "sft") == {"test:0": Output("s", True)}
    with pytest.raises(
        UserError, match=r"row 1: it has answers of sft, ppo, and none of a; .*compare\.outputs\.a=FILE@"
    ):
        read(path)


def test_one_generator_of_several_is_chosen(tmp_path: Path) -> None:
    rows = [{"instruction": "one", "output": f"by {name}", "generator": name} for name in ("x", "y")]
    path = write(tmp_path / "o.jsonl", rows)
    assert read(f"{path}@y") == {"test:0": Output("by y", True)}
    with pytest.raises(
        UserError, match=r"row 2: it answers the prompt of o\.jsonl, row 1 with another text.*@GENERATOR"
    ):
        read(path)
    with pytest.raises(UserError, match="has no rows of the generator z"):
        read(f"{path}@z")
    with pytest.raises(UserError, match="neither `candidates` nor a `generator`"):
        read(write(tmp_path / "plain.jsonl", [{"prompt": "one", "response": "x"}]) + "@z")


def test_prompts_that_some_file_lacks_are_left_out_for_all_and_counted(tmp_path: Path) -> None:
    a = write(tmp_path / "a.jsonl", [{"prompt": p, "response": "a"} for p in ("one", "two")])
    b = write(tmp_path / "b.jsonl", [{"prompt": p, "response": "b"} for p in ("two", "elsewhere")])
    prompts, found, lacking = answered({"a": a, "b": b}, PROMPTS)
    assert [asked.id for asked in prompts] == ["test:1"]
    assert (found["a"]["test:1"].text, found["b"]["test:1"].text) == ("a", "b")
    assert lacking == {"a": 1, "b": 2}


def test_files_that_share_no_prompt_are_refused_with_what_was_found(tmp_path: Path) -> None:
    elsewhere = write(tmp_path / "e.jsonl", [{"prompt": "elsewhere", "response": "x"}])
    with pytest.raises(
        UserError, match=r"none of the 3 held-out prompts: its first row is of `elsewhere`.* test:0, `one`"
    ):
        read(elsewhere)
    a, b = (write(tmp_path / f"{p}.jsonl", [{"prompt": p, "response": "x"}]) for p in ("one", "two"))
    with pytest.raises(
        UserError, match=r"answered in all of compare\.outputs\.a, compare\.outputs\.b; .* 1, 1 of them"
    ):
        answered({"a": a, "b": b}, PROMPTS)


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "one"}, "it has no answer; give it one of `response`"),
        ({"prompt": "one", "response": 3}, "`response` is not text"),
        ({"instruction": "", "output": "x"}, "`instruction` is empty"),
        ({"question": "one", "response": "x"}, "its columns are `question`, `response`, and none of them is a prompt"),
        ([1], r"\[1\]"),
    ],
)
def test_a_row_that_cannot_be_used_is_refused(tmp_path: Path, row: Any, problem: str) -> None:
    with pytest.raises(UserError, match=rf"o\.jsonl, row 1: .*{problem}.*compare\.outputs\.a"):
        read(write(tmp_path / "o.jsonl", [row]))


def test_fingerprints_are_of_the_bytes_and_of_what_is_chosen_in_them(tmp_path: Path) -> None:
    path = write(tmp_path / "o.jsonl", [{"prompt": "one", "response": "x"}])
    same = write(tmp_path / "same.jsonl", [{"prompt": "one", "response": "x"}])
    first = fingerprints({"a": path})
    assert fingerprints({"a": same}) == first
    assert fingerprints({"a": f"{path}@x"}) != first
    write(tmp_path / "o.jsonl", [{"prompt": "one", "response": "y"}])
    assert fingerprints({"a": path}) != first


def test_a_missing_file_is_refused_with_its_key(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*none\.jsonl; set compare\.outputs\.a to a file"):
        require_files({"a": str(tmp_path / "none.jsonl@x")})
    require_files({"a": responses(tmp_path) + "@sft"})


FARM = Path("/work/shared/data/alpaca_farm")


@pytest.mark.skipif(not FARM.exists(), reason="the real files are not on this machine")
def test_alpaca_farms_three_files_answer_all_of_their_252_instructions(tmp_path: Path) -> None:
    files = {name: str(FARM / f"outputs_{name}.json") for name in ("baseline", "sft", "rlhf")}
    config = DataConfig(DataSourceName.alpaca, files["baseline"], evaluation_fraction=1, cache=str(tmp_path))
    asked = load_source(config, seed=0).prompts(Split.evaluation)
    prompts, found, lacking = answered(files, asked)
    assert len(prompts) == 252
    assert lacking == {"baseline": 0, "sft": 0, "rlhf": 0}
    rows = json.loads((FARM / "outputs_rlhf.json").read_text())
    assert [found["rlhf"][p.id].text for p in prompts] == [row["output"].strip() for row in rows]

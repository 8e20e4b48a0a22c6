from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.config import DataConfig, DataSourceName
from rlhf.data import files
from rlhf.data.files import Broken, RowFiles, Table
from rlhf.errors import UserError

ROWS = [{"prompt": f"p{i}", "n": i} for i in range(5)]
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)


def rows_of(path: Path, table: Table | None = None, **settings: Any) -> list[Any]:
    config = DataConfig(source=DataSourceName.jsonl, path=str(path), **settings)
    return [row.values for row in RowFiles(str(path), "data.path", config, table or Table())]


def problems(values: list[Any]) -> list[str]:
    return [value.problem for value in values if isinstance(value, Broken)]


@pytest.mark.parametrize("name", ["r.jsonl", "r.json", "r.jsonl.gz", "r.json.gz"])
def test_lines_and_lists_are_told_apart_by_their_first_characters(tmp_path: Path, name: str) -> None:
    for text in (
        "\n".join(map(json.dumps, ROWS)),
        json.dumps(ROWS),
        json.dumps(ROWS, indent=2),
        "\ufeff" + json.dumps(ROWS),
    ):
        data = text.encode()
        (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith(".gz") else data)
        assert rows_of(tmp_path / name) == ROWS


@given(values=st.lists(st.dictionaries(st.text(), json_values, max_size=3), max_size=6), indent=st.none() | st.just(1))
def test_a_list_read_item_by_item_is_what_json_reads(
    tmp_path_factory: pytest.TempPathFactory, values: list[Any], indent: int | None
) -> None:
    path = tmp_path_factory.mktemp("list") / "r.json"
    path.write_text(json.dumps(values, indent=indent), encoding="utf-8")
    before, files._CHUNK = files._CHUNK, 7  # so that items, numbers and strings are cut anywhere
    try:
        assert rows_of(path) == values
    finally:
        files._CHUNK = before


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ('[{"a": 1}, {"b": ', "is not JSON"),
        ('[{"a": 1} {"b": 2}]', "a comma or the closing bracket is missing"),
        ('[{"a": 1}, ', "ends before the closing bracket"),
        ('[{"a": 1}', "a comma or the closing bracket is missing"),
    ],
)
def test_a_broken_list_is_refused(tmp_path: Path, text: str, problem: str) -> None:
    (tmp_path / "r.json").write_text(text)
    with pytest.raises(UserError, match=r"r\.json is not JSON") as refused:
        rows_of(tmp_path / "r.json")
    assert problem in str(refused.value)


def test_broken_lines_keep_their_place(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_bytes(b'{"a": 1}\n{broken\n\n{"b": "\xff"}\n' + b"[" * 100000 + b'\n1e999999\n{"c": 2}\n')
    values = rows_of(path)
    assert [values[0], values[-1]] == [{"a": 1}, {"c": 2}]
    assert len(values) == 6
    first, second, third = problems(values)
    assert first.startswith("it is not JSON")
    assert second.startswith("it is not UTF-8")
    assert "nested too deeply" in third


def test_tables_give_text_as_it_stands(tmp_path: Path) -> None:
    path = tmp_path / "r.csv"
    path.write_text(
        '\ufeff,prompt,answer\n0,"line one\nline ""two""",None\n1,"a, b",NA\n2,x,007\n3,y,\n', encoding="utf-8"
    )
    assert rows_of(path) == [
        {"": "0", "prompt": 'line one\nline "two"', "answer": "None"},
        {"": "1", "prompt": "a, b", "answer": "NA"},
        {"": "2", "prompt": "x", "answer": "007"},
        {"": "3", "prompt": "y", "answer": ""},
    ]


def test_a_row_of_another_width_is_broken_and_the_next_is_not(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text("a\tb\n1\t2\t3\n4\n5\t6\n")
    values = rows_of(path)
    assert values[-1] == {"a": "5", "b": "6"}
    assert problems(values) == [
        "it has 3 fields, and there are 2 columns",
        "it has 1 fields, and there are 2 columns",
    ]


def test_a_table_without_header_or_quoting_takes_its_columns_from_the_format(tmp_path: Path) -> None:
    path = tmp_path / "r.tsv"
    path.write_text('He said "go\tyes\n\'s\tno"\n')
    table = Table(columns=("question", "answer"), quoting=False)
    assert rows_of(path, table) == [
        {"question": 'He said "go', "answer": "yes"},
        {"question": "'s", "answer": 'no"'},
    ]


def test_two_columns_of_one_name_are_refused(tmp_path: Path) -> None:
    (tmp_path / "r.csv").write_text("a,b,a\n1,2,3\n")
    with pytest.raises(UserError, match="two columns `a`"):
        rows_of(tmp_path / "r.csv")


def test_parquet_and_saved_datasets_are_read(tmp_path: Path) -> None:
    pq.write_table(pa.Table.from_pylist(ROWS), tmp_path / "r.parquet")
    assert rows_of(tmp_path / "r.parquet") == ROWS
    from datasets import Dataset, DatasetDict

    DatasetDict({"train": Dataset.from_list(ROWS)}).save_to_disk(tmp_path / "saved")
    assert rows_of(tmp_path / "saved") == ROWS
    (tmp_path / "bad.parquet").write_bytes(b"PAR1")
    with pytest.raises(UserError, match=r"bad\.parquet cannot be read .*whole Parquet file"):
        rows_of(tmp_path / "bad.parquet")


def test_a_folder_with_training_and_evaluation_files_says_which_rows_are_which(tmp_path: Path) -> None:
    for name in ("train", "test"):
        (tmp_path / "harmless-base").mkdir(exist_ok=True)
        with gzip.open(tmp_path / "harmless-base" / f"{name}.jsonl.gz", "wt") as file:
            file.write(json.dumps({"prompt": name}) + "\n")
    (tmp_path / "dataset_infos.json").write_text('{"not": "a row"}')
    config = DataConfig(source=DataSourceName.jsonl, path=str(tmp_path))
    assert {(r.values["prompt"], r.evaluation) for r in RowFiles(str(tmp_path), "data.path", config, Table())} == {
        ("train", False),
        ("test", True),
    }
    (tmp_path / "harmless-base" / "train.jsonl.gz").unlink()  # what remains is split by a hash, as a lone file is
    assert [row.evaluation for row in RowFiles(str(tmp_path), "data.path", config, Table())] == [None]


def test_max_rows_reads_no_further(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("\n".join(map(json.dumps, ROWS)))
    assert rows_of(path, max_rows=2) == ROWS[:2]


@pytest.mark.parametrize(
    ("name", "data", "problem"),
    [
        ("r.jsonl.gz", b"plain text", r"cannot be read"),
        ("r.jsonl.gz", gzip.compress(b'{"a": 1}\n' * 999, mtime=0)[:-20], r"cannot be read"),
        ("r.csv", b"a,b\n\xff,1\n", r"cannot be read .*UTF-8"),
        ("r.json", b'[{"a": "\xff"}]', r"cannot be read .*UTF-8"),
        ("r.xlsx", b"PK", r"has an unknown format; data\.path takes \.jsonl, \.json, \.csv, \.tsv, \.parquet"),
    ],
    ids=["no gzip", "half a gzip", "table not UTF-8", "list not UTF-8", "unknown suffix"],
)
def test_unreadable_files_are_refused_by_name(tmp_path: Path, name: str, data: bytes, problem: str) -> None:
    (tmp_path / name).write_bytes(data)
    with pytest.raises(UserError, match=problem) as refused:
        rows_of(tmp_path / name)
    assert str(refused.value).startswith(name)


def test_a_hub_dataset_is_read_by_datasets_and_its_hash_follows_subset_and_split(tmp_path: Path) -> None:
    """A folder in the hub's format stands in for the hub."""
    for split, rows in (("train", ROWS), ("test", ROWS[:2])):
        (tmp_path / f"{split}.jsonl").write_text("\n".join(map(json.dumps, rows)))
    hashes = set()
    for split, streaming, count in (("train", False, 5), ("test", False, 2), ("train", True, 5)):
        config = DataConfig(source=DataSourceName.jsonl, path="x", split=split, streaming=streaming)
        rows = files._HubRows(str(tmp_path), "data.path", config)
        assert [row.values for row in rows] == ROWS[:count]
        hashes.add(rows.sha256)
    assert len(hashes) >= 2
    with pytest.raises(UserError, match="no hub dataset of that name loads"):
        files._HubRows(str(tmp_path / "none"), "data.path", config)


def splits_of(root: Path, *names: str) -> dict[str, set[bool | None]]:
    """Each file's rows, by whether they are for evaluation."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(json.dumps({"prompt": name, "response": "a"}) + "\n")
    found: dict[str, set[bool | None]] = {}
    for row in RowFiles(str(root), "data.path", DataConfig(), Table()):
        found.setdefault(row.file, set()).add(row.evaluation)
    return found


@pytest.mark.parametrize(
    "held_out", ["val.jsonl", "dev.jsonl", "my-valid.jsonl", "validation/a.jsonl", "x_test_1.jsonl"]
)
def test_a_file_is_for_evaluation_by_any_of_the_usual_names(tmp_path: Path, held_out: str) -> None:
    assert splits_of(tmp_path, "train.jsonl", held_out) == {"train.jsonl": {False}, held_out: {True}}


@pytest.mark.parametrize("above", ["chat-test", "dev", "eval/data", ".cache/x"])
def test_what_folders_above_are_called_says_nothing(tmp_path: Path, above: str) -> None:
    root = tmp_path / above
    assert splits_of(root, "train.jsonl", "test.jsonl") == {"train.jsonl": {False}, "test.jsonl": {True}}
    assert splits_of(root / "plain", "a.jsonl", "b.jsonl") == {"a.jsonl": {None}, "b.jsonl": {None}}


def test_a_file_s_own_name_decides_before_its_folder_s_and_what_was_decided_is_said(tmp_path: Path) -> None:
    names = ("train/test-questions.jsonl", "train/a.jsonl", "test/b.jsonl", "val.jsonl")
    found = splits_of(tmp_path, *names)
    assert found == {names[0]: {True}, names[1]: {False}, names[2]: {True}, names[3]: {True}}
    said = RowFiles(str(tmp_path), "data.path", DataConfig(), Table()).splits_in_words
    evaluation = "test/b.jsonl, train/test-questions.jsonl, val.jsonl"
    assert said == f"by their names, train/a.jsonl for training and {evaluation} for evaluation"


def test_files_of_one_name_in_two_folders_are_two(tmp_path: Path) -> None:
    assert set(splits_of(tmp_path, "one/a.jsonl", "two/a.jsonl")) == {"one/a.jsonl", "two/a.jsonl"}


@pytest.mark.parametrize(
    ("name", "begins", "said"),
    [
        (
            "a.jsonl.gz",
            b"version https://git-lfs.github.com/spec/v1\noid sha256:ab\nsize 3\n",
            "LFS pointer.*git lfs pull",
        ),
        ("a.jsonl", '{"prompt": "a", "response": "b"}\n'.encode("utf-16"), "UTF-16 text"),
        ("a.csv", "prompt,response\na,b\n".encode("utf-16"), "UTF-16 text"),
        ("a.json", b"PK\x03\x04rest", "zip archive"),
        ("a.jsonl", b"<!DOCTYPE html><html>", "a web page"),
        ("a.jsonl", gzip.compress(b'{"prompt": "a"}\n'), r"gzip-compressed; call it a\.jsonl\.gz"),
    ],
)
def test_a_file_that_is_something_else_says_what_it_is(tmp_path: Path, name: str, begins: bytes, said: str) -> None:
    (tmp_path / name).write_bytes(begins)
    with pytest.raises(UserError, match=said):
        rows_of(tmp_path / name)

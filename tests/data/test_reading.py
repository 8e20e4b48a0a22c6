from __future__ import annotations

import contextlib
import json
import logging
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.config import DataConfig, DataSourceName, OnBadRow
from rlhf.data import reading
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.source import held_out
from rlhf.errors import UserError
from tests.data.test_files import json_values

FROM_FILES = [s for s in DataSourceName if s.value not in ("sandbox", "mixture", "phrasings")]
COLUMNS = (
    *("prompt", "response", "completion", "instruction", "input", "output", "context", "messages", "conversations"),
    *("chosen", "rejected", "completions", "ranks", "scores", "text", "instances", "inputs", "targets", "question"),
    *("answer", "rationale", "history", "human_ref_A", "human_ref_B", "labels", "info", "summaries", "choice"),
    *("answer_0", "answer_1", "score_0", "score_1", "response_0", "response_1", "better_response_id", "helpfulness"),
    *(
        "message_id",
        "parent_id",
        "role",
        "replies",
        "message_tree_id",
        "data",
        "id",
        "user_input",
        "ref_text",
        "sample",
    ),
)


def read(path: Path, source: str = "jsonl", **given: Any) -> reading.Reading:
    config = DataConfig(
        source=DataSourceName(source),
        path=str(path),
        cache=str(path.parent / "cache"),
        on_bad_row=OnBadRow.skip,
        **given,
    )
    return reading.read(config, str(path), "data.path", BadRows(OnBadRow.skip, None))


def records(read: reading.Reading) -> list[Any]:
    return list(read.store.pick(np.arange(len(read.store)), lambda record: record))


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.mark.parametrize("source", FROM_FILES)
@settings(max_examples=30)
@given(
    rows=st.lists(
        # No lists: one alone in a file is the file's rows.
        st.dictionaries(st.sampled_from(COLUMNS), json_values, max_size=6) | st.none() | st.text() | st.integers(),
        min_size=1,
        max_size=5,
    )
)
def test_every_row_is_used_or_refused_with_a_sentence_whatever_the_format(
    tmp_path_factory: pytest.TempPathFactory, source: DataSourceName, rows: list[Any]
) -> None:
    path = write(tmp_path_factory.mktemp("rows") / "r.jsonl", rows)
    given = None
    with contextlib.suppress(UserError):  # none of them can be used
        given = read(path, source.value)
    if given is None:
        with pytest.raises(UserError, match=f"^None of the {len(rows)} rows"):
            read(path, source.value)
        return
    assert given.rows == len(rows)
    assert all(refusal.problem.strip() for refusal in given.refused)
    assert 0 <= given.rows_refused < len(rows)
    assert len(given.store) >= 1


def test_what_was_read_is_found_again_until_bytes_or_settings_change(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(9)] + ["bad"])
    first = read(path)
    made = (tmp_path / "cache" / "records" / first.store.name / "records.arrow").stat().st_mtime_ns
    time.sleep(0.01)
    again = read(path)
    assert again.store.name == first.store.name
    assert (tmp_path / "cache" / "records" / again.store.name / "records.arrow").stat().st_mtime_ns == made
    assert again.refused == first.refused
    assert (again.rows, again.rows_refused) == (10, 1)
    names = {first.store.name, read(path, max_rows=5).store.name, read(path, columns={"prompt": "response"}).store.name}
    write(path, [{"prompt": "p", "response": "r"}])
    names.add(read(path).store.name)
    assert len(names) == 4


def test_an_interrupted_reading_leaves_nothing_behind_that_looks_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(3000)])
    finished = reading._finished

    def stopping(records: Any, row: Any, source: str) -> Any:
        if row.number == 2500:
            raise KeyboardInterrupt
        return finished(records, row, source)

    monkeypatch.setattr(reading, "_finished", stopping)
    with pytest.raises(KeyboardInterrupt):
        read(path)
    monkeypatch.undo()
    left = tmp_path / "cache" / "records" / f".{read(path).store.name}-killed"
    assert len(read(path).store) == 3000
    left.mkdir()  # as SIGKILL leaves it
    shutil.rmtree(tmp_path / "cache" / "records" / read(path).store.name)
    read(path)
    assert not left.exists()


def cut_at_a_batch(path: Path) -> None:
    """The first of three batches alone, a file that Arrow reads without a word."""
    with pa.OSFile(str(path)) as source:
        stream = pa.ipc.open_stream(source)
        first, schema = stream.read_next_batch(), stream.schema
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        writer.write_batch(first)


def flipped(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("file", ["records.arrow", "read.json", "seal.json"])
@pytest.mark.parametrize(
    "harm",
    [
        flipped,
        lambda path: path.write_bytes(b""),
        lambda path: path.write_bytes(b"\x00" * path.stat().st_size),
        lambda path: path.write_bytes(path.read_bytes()[:-7]),
        lambda path: path.unlink(),
    ],
)
def test_a_damaged_cache_is_made_anew_and_it_is_said(
    tmp_path: Path, file: str, harm: Callable[[Path], object], caplog: pytest.LogCaptureFixture
) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(30)])
    made = tmp_path / "cache" / "records" / read(path).store.name
    harm(made / file)
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        again = read(path)
    assert len(again.store) == again.rows == 30
    assert f"the cache {made} is damaged" in caplog.text
    caplog.clear()
    assert len(read(path).store) == 30
    assert caplog.messages == []


def test_a_cache_that_was_cut_where_a_batch_ends_is_not_taken_for_whole(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(3000)])
    cut_at_a_batch(tmp_path / "cache" / "records" / read(path).store.name / "records.arrow")
    assert len(read(path).store) == 3000


def test_completions_lie_in_an_order_that_tells_nothing_of_their_ranks(tmp_path: Path) -> None:
    rows = [
        {"prompt": f"p{i}", "completions": [f"a{i}", f"b{i}", f"c{i}"], "ranks": [0, 1, 2], "margins": [3, 2, 1]}
        for i in range(300)
    ]
    given = records(read(write(tmp_path / "r.jsonl", rows)))
    firsts = [ranking.ranks[0] for ranking in given]
    assert all(70 <= firsts.count(rank) <= 130 for rank in range(3))
    for i, ranking in enumerate(given):
        assert isinstance(ranking, Ranking)
        expected = {f"a{i}": (0, 3.0), f"b{i}": (1, 2.0), f"c{i}": (2, 1.0)}
        assert dict(zip(ranking.completions, zip(ranking.ranks, ranking.margins, strict=True), strict=True)) == expected


def test_ids_name_file_and_row_and_the_place_among_a_rows_prompts(tmp_path: Path) -> None:
    seeds = [{"instruction": "Sort.", "instances": [{"input": "b a", "output": "a b"}, {"input": "c", "output": "c"}]}]
    assert [r.prompt.id for r in records(read(write(tmp_path / "s.jsonl", seeds), "self_instruct"))] == [
        "self_instruct:s.jsonl:1:0",
        "self_instruct:s.jsonl:1:1",
    ]
    rows = [{"prompt": "a", "response": "b"}, {"id": "mine", "prompt": "a", "chosen": "b", "rejected": "c"}]
    assert [r.prompt.id for r in records(read(write(tmp_path / "r.jsonl", rows)))] == [
        "jsonl:r.jsonl:1",
        "mine",
        "mine",
    ]


def test_columns_of_ones_own_names_are_read(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"question": "why?", "reply": "so"}, {"question": "how?"}])
    given = read(path, columns={"prompt": "question", "response": "reply"})
    (record,) = records(given)
    assert isinstance(record, Demonstration)
    assert (record.prompt.messages[0].content, record.response) == ("why?", "so")
    (refusal,) = given.refused
    assert (refusal.where, refusal.problem) == ("r.jsonl, row 2", "it has no column `reply`, only `question`")
    assert refusal.remedy == "set data.columns.response to one of them"


def test_half_a_character_is_refused(tmp_path: Path) -> None:
    (tmp_path / "r.jsonl").write_text('{"prompt": "a\\ud800", "response": "b"}\n{"prompt": "a", "response": "b"}\n')
    (refusal,) = read(tmp_path / "r.jsonl").refused
    assert "lone surrogate" in refusal.problem


def test_a_format_that_fits_no_row_says_so(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", [{"prompt": "a", "response": "b"}] * 3)
    with pytest.raises(
        UserError, match=r"None of the 3 rows .* as data=alpaca\. r\.jsonl, row 1: .*read as data=jsonl\."
    ):
        read(path, "alpaca")


def test_a_full_disk_names_the_cache_and_the_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, records: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(reading, "write", full)
    with pytest.raises(UserError, match=r"The cache .* cannot be written \(No space left on device\); set data\.cache"):
        read(write(tmp_path / "r.jsonl", [{"prompt": "a", "response": "b"}]))


def test_splits_follow_the_files_where_they_tell_both_and_a_hash_where_they_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "train.jsonl", [{"prompt": f"a{i}", "response": "r"} for i in range(50)])
    write(folder / "test.jsonl", [{"prompt": f"b{i}", "response": "r"} for i in range(7)])
    given = read(folder)
    config = DataConfig(source=DataSourceName.jsonl, path=str(folder), evaluation_fraction=0.5)
    evaluation = held_out(given, config)
    assert {r.prompt.messages[0].content[0] for r, e in zip(records(given), evaluation, strict=True) if e} == {"b"}
    assert evaluation.sum() == 7
    alone = held_out(read(folder / "test.jsonl"), config)
    assert 0 < alone.sum() < 7


def test_split_by_user_holds_out_all_that_a_user_wrote(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i}", "response": "r", "user": f"u{i % 20}"} for i in range(200)]
    given = read(write(tmp_path / "r.jsonl", rows))
    config = DataConfig(source=DataSourceName.jsonl, path="x", evaluation_fraction=0.4, split_by_user=True)
    evaluation = held_out(given, config)
    sides: dict[str, set[bool]] = {}
    for record, side in zip(records(given), evaluation, strict=True):
        sides.setdefault(record.prompt.user, set()).add(bool(side))
    assert all(len(side) == 1 for side in sides.values())
    assert {True, False} == {next(iter(side)) for side in sides.values()}


def test_conversations_that_begin_alike_lie_in_one_split(tmp_path: Path) -> None:
    rows = []
    for i in range(60):
        opening = [{"role": "user", "content": f"q{i}"}]
        reply = [{"role": "assistant", "content": "a"}, {"role": "user", "content": "and then?"}]
        rows += [{"messages": opening, "response": "a"}, {"messages": [*opening, *reply], "response": "b"}]
    given = read(write(tmp_path / "r.jsonl", rows))
    evaluation = held_out(given, DataConfig(source=DataSourceName.jsonl, path="x", evaluation_fraction=0.5))
    assert evaluation.reshape(-1, 2).all(axis=1).sum() == evaluation.reshape(-1, 2).any(axis=1).sum() > 0
    assert len(np.unique(given.store.key)) == 120

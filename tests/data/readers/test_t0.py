from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.data.readers.t0 import read
from rlhf.data.records import BadRowError

FOLDER = Path("/work/shared/data/t0")
FILES = sorted(FOLDER.glob("*.jsonl"))


def test_end_token_and_final_line_break_are_gone() -> None:
    [record] = read({"prompt": "Summarize: it rained\n", "completion": "Rain.<|endoftext|>"})
    assert (record.prompt.messages[0].content, record.response) == ("Summarize: it rained", "Rain.")


def test_p3_row_is_read_from_its_texts() -> None:
    row = {"inputs": [3, 5], "inputs_pretokenized": "Is it so?", "targets": [7], "targets_pretokenized": "\nYes"}
    [record] = read(row)
    assert (record.prompt.messages[0].content, record.response) == ("Is it so?", "Yes")


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"prompt": "a", "completion": "<|endoftext|>"}, "`completion` is an end token and nothing else"),
        ({"prompt": "a"}, "no text under `completion`"),
        ({"inputs_pretokenized": "a", "targets_pretokenized": ""}, "`targets_pretokenized` is empty"),
    ],
)
def test_row_without_a_response_is_refused(row: dict[str, str], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row)


@pytest.mark.skipif(not FILES, reason="the real files are not on this machine")
def test_every_row_of_the_real_files_is_a_demonstration_without_end_token() -> None:
    assert len(FILES) == 10
    for path in FILES:
        rows = [json.loads(line) for line in path.read_text(encoding="utf-8").split("\n") if line]
        records = [record for row in rows for record in read(row)]
        assert (len(rows), len(records)) == (200, 200), path.name
        for row, record in zip(rows, records, strict=True):
            assert record.response + "<|endoftext|>" == row["completion"].strip()
            assert record.prompt.messages[0].content == row["prompt"].strip()

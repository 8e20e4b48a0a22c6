from __future__ import annotations

import csv
import gzip
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.files import Row
from rlhf.data.readers.instructgpt import gather, read
from rlhf.data.records import BadRowError

FOLDER = Path("/work/shared/data/instructgpt")
ROW = {
    "": "0",
    "model_type": "ppo-ptx-xl",
    "prompt_type": "zeroshot",
    "context": "French: Bonne nuit\nEnglish:",
    "ref_text": "Good night",
    "sample": "Night",
}


def test_reference_is_the_demonstration_and_the_sample_is_not() -> None:
    [record] = read(ROW)
    assert record.prompt.messages[0].content == "French: Bonne nuit\nEnglish:"
    assert record.response == "Good night"


@pytest.mark.parametrize("text", ["None", "NA"])
def test_none_and_na_are_text(text: str) -> None:
    [record] = read({**ROW, "context": text, "ref_text": text})
    assert (record.prompt.messages[0].content, record.response) == (text, text)


def test_row_without_a_reference_is_refused() -> None:
    with pytest.raises(BadRowError, match="`ref_text` is empty"):
        read({**ROW, "ref_text": ""})
    with pytest.raises(BadRowError, match="no text under `context`"):
        read({"ref_text": "a"})


def test_answers_of_several_models_to_one_prompt_count_once() -> None:
    other = {**ROW, "context": "French: Non\nEnglish:"}
    values: list[dict[str, Any]] = [ROW, {"broken": 1}, other, {**ROW, "sample": "Sleep well"}]
    gathered = list(gather(Row("a.csv", number, row) for number, row in enumerate(values, start=1)))
    assert sorted((row.number, row.merged) for row in gathered) == [(1, 2), (2, 1), (3, 1)]


def rows(name: str) -> list[dict[str, Any]]:
    path = FOLDER / name
    with (gzip.open if name.endswith(".gz") else open)(path, "rt", encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


@pytest.mark.skipif(not FOLDER.exists(), reason="the real files are not on this machine")
@pytest.mark.parametrize(
    ("name", "count", "copies"), [("fr_to_en_samples.csv", 2400, 24), ("tldr_samples.csv.gz", 1200, 12)]
)
def test_every_row_of_the_real_files_is_read_and_each_prompt_comes_once(name: str, count: int, copies: int) -> None:
    values = rows(name)
    records = [record for row in values for record in read(row)]
    assert (len(values), len(records)) == (count, count)
    for row, record in zip(values, records, strict=True):
        assert "\n" in record.prompt.messages[0].content  # line breaks within a field have survived
        assert record.prompt.messages[0].content == row["context"].strip()
        assert record.response == row["ref_text"].strip()
    gathered = list(gather(Row(name, number, row) for number, row in enumerate(values, start=1)))
    assert [row.merged for row in gathered] == [copies] * 100

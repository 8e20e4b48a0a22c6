from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data.readers.flan_cot import COLUMNS, read
from rlhf.data.records import BadRowError

FOLDER = Path("/work/shared/data/flan_cot")


def row(line: str) -> dict[str, str]:
    return dict(zip(COLUMNS, line.split("\t"), strict=True))


def test_response_is_the_rationale_and_then_the_answer() -> None:
    [record] = read(row('Is "ice" cold?\tyes\tIce is frozen water.'))
    assert record.prompt.messages[0].content == 'Is "ice" cold?'
    assert record.response == "Ice is frozen water.\nThe answer is yes."


def test_marks_become_line_breaks_and_a_full_stop_is_not_doubled() -> None:
    [record] = read(row(r"Options:\n(A) one\n(B) two" + "\t" + "(A) one." + "\t" + r"First.\nThen."))
    assert record.prompt.messages[0].content == "Options:\n(A) one\n(B) two"
    assert record.response == "First.\nThen.\nThe answer is (A) one."


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ("q\t \tr", "`answer` is empty"),
        ("q\ta\t\\n", "`rationale` is empty"),
        ("q\ta\t", "`rationale` is empty"),
    ],
)
def test_row_with_an_empty_field_is_refused(line: str, problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row(line))


@pytest.mark.skipif(not FOLDER.exists(), reason="the real files are not on this machine")
@pytest.mark.parametrize(("name", "count"), [("strategyqa_train.tsv", 2061), ("gsm8k_train_head1000.tsv", 1000)])
def test_every_line_of_the_real_files_is_a_demonstration(name: str, count: int) -> None:
    lines = [line for line in (FOLDER / name).read_text(encoding="utf-8").split("\n") if line]
    records = [record for line in lines for record in read(row(line))]
    assert (len(lines), len(records)) == (count, count)
    for line, record in zip(lines, records, strict=True):
        question, answer, rationale = line.split("\t")
        assert record.prompt.messages[0].content == question.strip()
        assert record.response == f"{rationale.strip()}\nThe answer is {answer.strip()}."

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.readers import alpaca
from rlhf.data.readers.gpt4_llm import read
from rlhf.data.records import BadRowError, Demonstration, Ranking

FARM = Path("/work/shared/data/alpaca_farm")
WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nSort the list.\n\n### Input:\n3, 1"
)
WITHOUT = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\nGive a tip."
)


def scored(*pairs: tuple[str, Any]) -> dict[str, Any]:
    sources = ("gpt4", "text-davinci-003", "icm-1.3b")
    responses = [{"response": r, "score": s, "source": o} for (r, s), o in zip(pairs, sources, strict=False)]
    return {"user_input": "Give a tip.", "responses_and_scores": responses}


def test_gpt4_answer_to_alpacas_instruction_is_a_demonstration() -> None:
    [record] = read({"instruction": "Sort.", "input": "3 1", "output": "1 3"})
    assert isinstance(record, Demonstration)
    assert record == alpaca.read({"instruction": "Sort.", "input": "3 1", "output": "1 3"})[0]


def test_scores_rank_all_responses_and_equal_scores_tie() -> None:
    [record] = read(scored(("a", 7.0), ("b", 9.0), ("c", 7.0)))
    assert isinstance(record, Ranking)
    assert (record.completions, record.ranks, record.margins) == (("a", "b", "c"), (1, 0, 1), (7.0, 9.0, 7.0))


def test_empty_response_is_left_out_of_the_ranking() -> None:
    [record] = read(scored(("a", 7.0), ("b", 9.0), ("", 1.0)))
    assert isinstance(record, Ranking)
    assert (record.completions, record.ranks) == (("a", "b"), (1, 0))


@pytest.mark.parametrize(
    ("user_input", "content", "given"),
    [
        (WITH_INPUT, "Sort the list.\n\n3, 1", "3, 1"),
        (WITH_INPUT + "\n\n### Response:", "Sort the list.\n\n3, 1", "3, 1"),
        (WITHOUT, "Give a tip.", ""),
        ("Give a tip.", "Give a tip.", ""),
        ("What does ### Input:\n mean?", "What does ### Input:\n mean?", ""),
    ],
)
def test_alpacas_preamble_is_taken_off_the_prompt(user_input: str, content: str, given: str) -> None:
    [record] = read({**scored(("a", 1), ("b", 2)), "user_input": user_input})
    [message] = record.prompt.messages
    assert (message.content, message.input) == (content, given)


def test_older_file_ranks_completion_a_first() -> None:
    [record] = read({"user_input": "Give a tip.", "completion_a": "Sleep.", "completion_b": "no"})
    assert isinstance(record, Ranking)
    assert (record.completions, record.ranks) == (("Sleep.", "no"), (0, 1))


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (scored(("a", 1), ("", 2)), "needs 2 or more completions, and it has 1"),
        (scored(("a", 1), ("a", 2)), "its completions are the same"),
        (scored(("a", 1), ("b", "high")), r"`responses_and_scores\[1\].score` is 'high', not a number"),
        (scored(("a", 1), ("b", None)), r"`responses_and_scores\[1\].score`"),
        ({"user_input": "a", "responses_and_scores": ["b"]}, r"`responses_and_scores\[0\]` has no text"),
        ({"user_input": "a", "responses_and_scores": "b"}, "`responses_and_scores` is not a list"),
        ({"user_input": "a"}, "no text under `completion_a`"),
        ({"instruction": "a", "output": ""}, "`output` is empty"),
    ],
)
def test_row_that_ranks_nothing_is_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row)


@pytest.mark.skipif(not FARM.exists(), reason="the real files are not on this machine")
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("outputs_baseline.json", 252),
        ("outputs_sft.json", 252),
        ("outputs_rlhf.json", 252),
        ("eval_gpt-3.5-turbo-0301.json.gz", 805),
    ],
)
def test_every_row_of_real_files_of_alpacas_columns_is_a_demonstration(name: str, count: int) -> None:
    data = (FARM / name).read_bytes()
    rows = json.loads(gzip.decompress(data) if name.endswith(".gz") else data)
    records = [record for row in rows for record in read(row)]
    assert (len(rows), len(records)) == (count, count)
    assert records == [record for row in rows for record in alpaca.read(row)]

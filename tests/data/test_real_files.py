"""Published files, read whole: the row counts that their README states, odd cases and all."""

from __future__ import annotations

import csv
import gzip
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.config import DataConfig, DataSourceName, OnBadRow
from rlhf.data import reading
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Demonstration, Ranking, Role

SHARED = Path("/work/shared/data")
pytestmark = pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")
T0 = sorted(path.name for path in (SHARED / "t0").glob("*.jsonl")) if SHARED.exists() else []

# source, file, rows, rows that are refused, records by kind
FILES: list[tuple[str, str, int, int, dict[str, int]]] = [
    ("hh_rlhf", "hh_harmless_base_test.jsonl.gz", 2312, 9, {"Demonstration": 2303, "Ranking": 2303}),
    ("instructgpt", "instructgpt/fr_to_en_samples.csv", 2400, 0, {"Demonstration": 100}),
    ("instructgpt", "instructgpt/tldr_samples.csv.gz", 1200, 0, {"Demonstration": 100}),
    ("self_instruct", "self_instruct/seed_tasks.jsonl", 175, 0, {"Demonstration": 175}),
    ("self_instruct", "self_instruct/user_oriented_instructions.jsonl", 252, 0, {"Demonstration": 252}),
    *(("t0", f"t0/{name}", 200, 0, {"Demonstration": 200}) for name in T0),
    ("flan_cot", "flan_cot/strategyqa_train.tsv", 2061, 0, {"Demonstration": 2061}),
    ("flan_cot", "flan_cot/gsm8k_train_head1000.tsv", 1000, 0, {"Demonstration": 1000}),
    ("alpaca", "alpaca_farm/outputs_baseline.json", 252, 0, {"Demonstration": 252}),
    ("alpaca", "alpaca_farm/outputs_sft.json", 252, 0, {"Demonstration": 252}),
    ("alpaca", "alpaca_farm/outputs_rlhf.json", 252, 0, {"Demonstration": 252}),
    ("alpaca", "alpaca_farm/eval_gpt-3.5-turbo-0301.json.gz", 805, 0, {"Demonstration": 805}),
]


def read(source: str, file: str, **given: Any) -> reading.Reading:
    config = DataConfig(source=DataSourceName(source), path=str(SHARED / file), on_bad_row=OnBadRow.skip, **given)
    return reading.read(config, str(SHARED / file), "data.path", BadRows(OnBadRow.skip, None))


def records(given: reading.Reading) -> list[Any]:
    return list(given.store.pick(np.arange(len(given.store)), lambda record: record))


@pytest.mark.parametrize(("source", "file", "rows", "refused", "kinds"), FILES, ids=[case[1] for case in FILES])
def test_each_file_gives_the_rows_that_its_readme_states(
    source: str, file: str, rows: int, refused: int, kinds: dict[str, int]
) -> None:
    given = read(source, file)
    assert (given.rows, given.rows_refused) == (rows, refused)
    found: dict[str, int] = {}
    for record in records(given):
        found[type(record).__name__] = found.get(type(record).__name__, 0) + 1
    assert found == kinds


@pytest.mark.parametrize(
    ("file", "rows"),
    [
        ("hh_harmless_base_test.jsonl.gz", 2312),
        ("self_instruct/seed_tasks.jsonl", 175),
        ("t0/samsum_Summarize_.jsonl", 200),
        ("alpaca_farm/outputs_sft.json", 252),
        ("oasst/en_100_tree_first50.jsonl", 50),
        ("instructgpt/fr_to_en_samples.csv", 2400),
    ],
)
def test_a_published_file_is_recognised_when_nobody_says_what_it_is(file: str, rows: int) -> None:
    given = read("jsonl", file)
    assert given.rows == rows
    assert given.rows_refused <= 9


def test_the_ten_t0_files_are_one_folder_and_no_end_token_is_left() -> None:
    given = read("t0", "t0")
    assert given.rows == 2000
    assert not any("<|endoftext|>" in record.response for record in records(given))
    assert {record.prompt.id.split(":")[1] for record in records(given)} == set(T0)


def test_open_assistants_trees_and_messages_all_arrive_and_rankings_are_shuffled() -> None:
    trees = read("openassistant", "oasst/en_100_tree_first50.jsonl")
    assert (trees.rows, trees.rows_refused) == (50, 0)
    rankings = [record for record in records(trees) if isinstance(record, Ranking)]
    assert len(rankings) == 97
    # The file lists replies best first; what a model sees does not.
    in_order = sum(list(ranking.ranks) == sorted(ranking.ranks) for ranking in rankings)
    assert in_order < len(rankings) / 2
    messages = read("openassistant", "oasst/realistic_seed_data.json")
    assert messages.rows == 444
    assert all("assistant" in refusal.problem for refusal in messages.refused)
    assert messages.rows_refused == 22  # two whole trees


def test_tables_of_samples_keep_embedded_line_breaks_and_every_text_as_it_stands() -> None:
    data = gzip.decompress((SHARED / "instructgpt" / "tldr_samples.csv.gz").read_bytes()).decode()
    contexts = {row["context"].strip() for row in csv.DictReader(io.StringIO(data))}
    given = records(read("instructgpt", "instructgpt/tldr_samples.csv.gz"))
    assert {record.prompt.messages[0].content for record in given} == contexts
    assert any("\n" in context for context in contexts)


def test_literal_none_and_na_answers_stay_text(tmp_path: Path) -> None:
    path = tmp_path / "fr_to_en.csv"
    path.write_text(",model_type,context,ref_text,sample\n0,sft,Say nothing.,None,NA\n1,sft,Abbreviate.,NA,None\n")
    config = DataConfig(source=DataSourceName.instructgpt, path=str(path))
    given = reading.read(config, str(path), "data.path", BadRows(OnBadRow.refuse, None))
    assert [record.response for record in records(given)] == ["None", "NA"]


def test_harmless_pairs_keep_the_words_of_the_file() -> None:
    lines = gzip.decompress((SHARED / "hh_harmless_base_test.jsonl.gz").read_bytes()).decode().splitlines()
    rankings = [r for r in records(read("hh_rlhf", "hh_harmless_base_test.jsonl.gz")) if isinstance(r, Ranking)]
    for ranking in rankings[::100]:
        row = json.loads(lines[int(ranking.prompt.id.rpartition(":")[2]) - 1])
        better = ranking.completions[ranking.ranks.index(0)]
        worse = ranking.completions[ranking.ranks.index(1)]
        assert row["chosen"].rstrip().endswith(better)
        assert row["rejected"].rstrip().endswith(worse)
        turns = sum(message.role == Role.user for message in ranking.prompt.messages)
        assert turns == row["chosen"].count("\n\nHuman:")


def test_rationales_have_their_line_breaks() -> None:
    given = records(read("flan_cot", "flan_cot/gsm8k_train_head1000.tsv"))
    assert all(isinstance(record, Demonstration) and "The answer is" in record.response for record in given)
    assert not any("\\n" in record.response for record in given)

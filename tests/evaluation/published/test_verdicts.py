from __future__ import annotations

import csv
import gzip
import json
import math
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from rlhf.errors import UserError
from rlhf.evaluation.published.verdicts import Verdict, read
from rlhf.evaluation.published.verdicts_summary import summarise
from tests.support.published_rows import row, written

ROWS = [row(1), row(2, input="In Spanish."), row(1.25, dataset="oasst"), row(None)]


def write(path: Path, rows: list[dict[str, Any]]) -> str:
    """In the format of the file's name; a table as pandas would write it."""
    if path.name.endswith(".parquet"):
        columns = {name: [values.get(name) for values in rows] for name in ROWS[1]}
        columns["preference"] = [None if value is None else float(value) for value in columns["preference"]]
        pyarrow.parquet.write_table(pyarrow.table(columns), path)
        return str(path)
    with gzip.open(path, "wt", newline="") if path.suffix == ".gz" else path.open("w", newline="") as file:
        if ".jsonl" in path.name:
            file.writelines(json.dumps(values) + "\n" for values in rows)
        elif ".json" in path.name:
            json.dump(rows, file)
        else:
            writer = csv.DictWriter(file, list(ROWS[1]), delimiter="\t" if ".tsv" in path.name else ",")
            writer.writeheader()
            for values in rows:
                told = values["preference"]
                writer.writerow(values | {"preference": "" if told is None else float(told)})
    return str(path)


@pytest.mark.parametrize("name", ["v.json", "v.jsonl", "v.json.gz", "v.jsonl.gz", "v.csv", "v.tsv.gz", "v.parquet"])
def test_every_format_gives_the_same_verdicts(tmp_path: Path, name: str) -> None:
    found = read(write(tmp_path / name, ROWS))
    assert [verdict.won for verdict in found] == [0, 1, 0.25, None]
    assert found[0] == Verdict(
        prompt="Name a bird.",
        generators=("davinci", "alpaca"),
        outputs=("A robin.", "A wren."),
        won=0.0,
        judge="gpt4",
        dataset="koala",
    )
    assert [verdict.dataset for verdict in found] == ["koala", "koala", "oasst", "koala"]
    assert len({verdict.prompt for verdict in found}) == 2


def test_a_folder_of_files_is_read_as_one(tmp_path: Path) -> None:
    for judge in ("gpt4", "claude"):
        written(tmp_path / f"{judge}.json", [row(2, annotator=judge)])
    assert {verdict.judge for verdict in read(str(tmp_path))} == {"gpt4", "claude"}


def test_rows_with_nothing_but_a_preference_are_prompts_of_their_own(tmp_path: Path) -> None:
    one, other = read(written(tmp_path / "v.json", [{"preference": 1}, {"preference": 0}]))
    assert one.prompt != other.prompt
    assert one.generators == ("output_1", "output_2")
    assert (one.outputs, one.judge, one.dataset) == ((None, None), "", "")


def test_alpacafarms_annotators_are_told_apart_by_their_index(tmp_path: Path) -> None:
    rows = [row(1, annotator=None, annotator_index=3), row(2, annotator=None, annotator_index=0), row(2)]
    assert [verdict.judge for verdict in read(written(tmp_path / "v.json", rows))] == ["3", "0", "gpt4"]


def test_an_empty_output_is_an_output_and_a_missing_one_is_not(tmp_path: Path) -> None:
    (verdict,) = read(written(tmp_path / "v.json", [row(1, output_1="", output_2=None)]))
    assert verdict.outputs == ("", None)


@pytest.mark.parametrize(("preference", "won"), [(1, 0), (2, 1), (0, 0.5), (1.5, 0.5), (1.999, 0.999), (2.0, 1)])
def test_a_preference_between_1_and_2_says_how_far_output_2_is_better(
    tmp_path: Path, preference: float, won: float
) -> None:
    (verdict,) = read(written(tmp_path / "v.json", [row(preference)]))
    assert verdict.won == pytest.approx(won)


def test_null_and_nan_are_no_verdict_in_json_and_so_are_empty_fields_in_a_table(tmp_path: Path) -> None:
    rows = [row(None), row(math.nan), row(2)]
    assert [verdict.won for verdict in read(written(tmp_path / "v.json", rows))] == [None, None, 1]
    table = tmp_path / "v.csv"
    table.write_text("preference\n2\nnan\nNone\nnull\nNA\n 1.0\n")
    assert [verdict.won for verdict in read(str(table))] == [1, None, None, None, None, 0]


@pytest.mark.parametrize(
    ("preferences", "problem"),
    [
        ([1, 3], r"row 2: its `preference` is '3'; mend it: 1, 2, a number between them, 0 or null"),
        ([-1], "'-1'"),
        ([0.5], r"'0\.5'"),
        ([True], "'True'"),
        (["2"], "'2'"),
        ([[1]], r"'\[1\]'"),
        ([None], "holds no verdict"),
        ([], "holds no verdict"),
    ],
)
def test_verdicts_that_are_none_are_refused(tmp_path: Path, preferences: list[Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        read(written(tmp_path / "v.json", [row(preference) for preference in preferences]))


@pytest.mark.parametrize("text", ["better", "1;0", "inf"])
def test_a_table_whose_preference_is_no_number_is_refused(tmp_path: Path, text: str) -> None:
    table = tmp_path / "v.csv"
    table.write_text(f"instruction,preference\na,2\nb,{text}\n")
    with pytest.raises(UserError, match=f"row 2: its `preference` is '{text}'; mend it"):
        read(str(table))


def test_a_file_of_something_else_is_refused_with_its_row(tmp_path: Path) -> None:
    outputs = written(tmp_path / "outputs.json", [{"instruction": "a", "output": "b", "generator": "c"}])
    with pytest.raises(UserError, match=r"row 1: it has no `preference`; compare\.verdicts takes AlpacaEval's"):
        read(outputs)
    columns = tmp_path / "columns.json"
    columns.write_text(json.dumps({"preference": {"0": 1, "1": 2}}, indent=1))
    with pytest.raises(UserError, match="row 1"):
        read(str(columns))


ARENA = {"question_id": 81, "model_a": "alpaca-13b", "model_b": "gpt-4", "judge": ["gpt-4", "pair-v2"], "turn": 1}


@pytest.mark.parametrize(
    ("winner", "won"),
    [
        *(("model_a", 0.0), ("model_b", 1.0), ("tie", 0.5), ("tie (bothbad)", 0.5), ("tie (inconsistent)", 0.5)),
        *(("gpt-4", 1.0), ("alpaca-13b", 0.0), ("error", None), (None, None)),
    ],
)
def test_rows_of_mt_bench_and_the_arena_are_verdicts(tmp_path: Path, winner: str | None, won: float | None) -> None:
    said = {
        f"conversation_{side}": [{"role": "user", "content": "Why?"}, {"role": "assistant", "content": side}]
        for side in "ab"
    }
    (found, _) = read(written(tmp_path / "v.json", [{**ARENA, **said, "winner": winner}, {**ARENA, "winner": "tie"}]))
    assert found == Verdict("81, turn 1", ("alpaca-13b", "gpt-4"), ("a", "b"), won, "gpt-4 pair-v2", "turn 1")


def test_a_winner_that_is_neither_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"row 1: its `winner` is 'llama'; mend it: model_a, model_b, tie"):
        read(written(tmp_path / "v.json", [{**ARENA, "winner": "llama"}]))


def test_several_pairs_of_the_arena_make_ratings(tmp_path: Path) -> None:
    rows = [
        {**ARENA, "question_id": i, "model_a": a, "model_b": b, "winner": "model_b" if i % 4 else "model_a"}
        for i in range(12)
        for a, b in (("small", "middle"), ("middle", "large"))
    ]
    path = written(tmp_path / "v.json", rows)
    found = summarise(read(path), bootstrap_samples=50, seed=0)
    rated = {rating["model"]: rating["elo"] for rating in found["ratings"]["models"]}
    assert rated["small"] < rated["middle"] < rated["large"]

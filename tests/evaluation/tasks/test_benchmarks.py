from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import CompareConfig, SandboxConfig
from rlhf.data.records import MultipleChoice
from rlhf.errors import UserError
from rlhf.evaluation.comparison import benchmark_tables
from rlhf.evaluation.comparison.curves import Curves
from rlhf.evaluation.comparison.page import render
from rlhf.evaluation.comparison.plots import figures
from rlhf.evaluation.comparison.summary import metrics, summarise
from rlhf.evaluation.comparison.text import text_table as comparison_table
from rlhf.evaluation.tasks import benchmarks
from rlhf.sandbox.source import SandboxSource
from tests.evaluation.comparison.test_summary import TASKS, answers
from tests.support.fakes import ListSource

ROW = {"context": "A cow says", "options": [" moo.", " baa."], "answer": 0, "task": "animals"}
ITEMS = [MultipleChoice("A cow says", (" moo.", " baa."), 0, task) for task in ("a", "a", "b", "")]


def write(folder: Path, *rows: Any) -> str:
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_file_holds_items_and_gives_the_benchmark_its_name(tmp_path: Path) -> None:
    path = write(tmp_path, ROW, {**ROW, "answer": 1, "task": None})
    found = benchmarks.benchmark_of(CompareConfig(benchmark=path), SandboxSource(SandboxConfig(), 0))
    assert found is not None
    assert found.name == "questions"
    assert found.items == [
        MultipleChoice("A cow says", (" moo.", " baa."), 0, "animals"),
        MultipleChoice("A cow says", (" moo.", " baa."), 1),
    ]


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"context": "  "}, "its `context` is '  ', no text"),
        ({"options": [" moo."]}, "not two texts or more"),
        ({"options": [" moo.", ""]}, "not two texts or more"),
        ({"options": "moo"}, "not two texts or more"),
        ({"options": [" moo.", " moo."]}, "two of its `options` are the same"),
        ({"answer": 2}, "its `answer` is '2', not a place from 0 to 1"),
        ({"answer": -1}, "not a place from 0 to 1"),
        ({"answer": " moo."}, "not a place from 0 to 1"),
        ({"answer": True}, "not a place from 0 to 1"),
        ({"task": 3}, "its `task` is '3', no text"),
    ],
)
def test_a_row_of_another_form_is_refused_with_its_place(tmp_path: Path, change: dict[str, Any], problem: str) -> None:
    path = write(tmp_path, ROW, {**ROW, **change})
    with pytest.raises(UserError) as caught:
        benchmarks.require(CompareConfig(benchmark=path))
    assert problem in str(caught.value)
    assert "questions.jsonl, row 2" in str(caught.value)
    assert "compare.benchmark takes rows of" in str(caught.value)


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"There is no file .*; set compare\.benchmark"):
        benchmarks.require(CompareConfig(benchmark=str(tmp_path / "none.jsonl")))
    with pytest.raises(UserError, match="holds no item"):
        benchmarks.require(CompareConfig(benchmark=write(tmp_path)))


def test_the_sandbox_has_a_benchmark_and_other_data_none() -> None:
    sandbox = SandboxSource(SandboxConfig(), 0)
    whole, few = (benchmarks.benchmark_of(CompareConfig(benchmark_items=n), sandbox) for n in (None, 30))
    assert whole is not None
    assert few is not None
    assert (whole.name, whole.chance, len(few.items)) == ("sandbox", 0.25, 30)
    assert few.items == whole.items[:30]
    assert benchmarks.benchmark_of(CompareConfig(benchmark_items=0), sandbox) is None
    assert benchmarks.benchmark_of(CompareConfig(), ListSource()) is None


def test_a_file_may_not_be_called_as_a_task_of_lm_eval(tmp_path: Path) -> None:
    config = CompareConfig(benchmark=write(tmp_path, ROW), lm_eval=["questions"])
    with pytest.raises(UserError, match="rename the file"):
        benchmarks.benchmark_of(config, ListSource())


def test_accuracy_counts_right_choices_and_its_interval_is_wilsons() -> None:
    found = benchmarks.summary(ITEMS, [0, 1, 0, 0])
    assert (found["accuracy"], found["n"]) == (0.75, 4)
    assert {task: (numbers["accuracy"], numbers["n"]) for task, numbers in found["tasks"].items()} == {
        "a": (0.5, 2),
        "b": (1.0, 1),
    }
    z, p, n = 1.959964, 0.75, 4  # Wilson 1927, eq. for the bounds
    middle, width = (p + z * z / (2 * n)) / (1 + z * z / n), z * (p * (1 - p) / n + z * z / (4 * n * n)) ** 0.5
    expected = [middle - width / (1 + z * z / n), middle + width / (1 + z * z / n)]
    assert found["ci"] == pytest.approx(expected, abs=1e-6)
    assert found["tasks"]["b"]["ci"][0] < 0.3 < found["tasks"]["b"]["ci"][1] == pytest.approx(1.0)


def test_the_fingerprint_is_of_the_files_bytes_and_empty_without_one(tmp_path: Path) -> None:
    config = CompareConfig(benchmark=write(tmp_path, ROW))
    before = benchmarks.fingerprint(config)
    write(tmp_path, {**ROW, "answer": 1})
    assert list(before) == ["benchmark_sha256"]
    assert benchmarks.fingerprint(config) != before
    assert benchmarks.fingerprint(CompareConfig()) == {}


# What is shown of them


def compared(**measured: dict[str, Any]) -> dict[str, Any]:
    given = {name: answers([0.5] * 40, [0.0] * 40, benchmarks=found) for name, found in measured.items()}
    judges = {"gold": "gold score (0 to 1)", "reward_model": "reward-model score"}
    return summarise(
        given, TASKS, baseline="sft", judges=judges, tie_margin=0.0, bootstrap_samples=50, seed=0
    )  # fmt: skip


def own(*choices: int) -> dict[str, Any]:
    return {"questions": benchmarks.summary(ITEMS, choices) | {"chance": 0.5}}


HARNESS = {"arc": {"acc": 0.25, "acc_stderr": 0.02, "acc_norm": 0.5, "exact_match,strict": 0.125, "n": 40}}


def test_the_manifest_gets_the_accuracy_and_every_metric_of_lm_eval() -> None:
    flat = metrics(compared(sft=own(0, 0, 0, 0) | HARNESS, ppo=own(0, 1, 1, 0) | HARNESS))
    assert flat["compare/sft_benchmark_accuracy"] == 1.0
    assert flat["compare/ppo_benchmark_accuracy"] == 0.5
    found = {key: value for key, value in flat.items() if "arc" in key and "ppo" in key}
    assert found == {
        "compare/ppo_arc_acc": 0.25,
        "compare/ppo_arc_acc_norm": 0.5,
        "compare/ppo_arc_exact_match,strict": 0.125,
    }


def test_the_terminal_shows_a_column_only_where_there_is_a_benchmark() -> None:
    assert "benchmark" not in comparison_table(compared(sft={}, ppo={}))
    lines = comparison_table(compared(sft=own(0, 0, 0, 0), ppo=own(0, 1, 1, 0))).splitlines()
    assert lines[0].endswith("benchmark")
    assert [line.split()[-1] for line in lines[2:]] == ["100.0%", "50.0%"]


def test_lm_evals_numbers_are_lines_with_their_standard_errors() -> None:
    report = compared(sft=HARNESS, ppo=HARNESS)
    lines = benchmark_tables.text_table(report["candidates"], ["sft", "ppo"]).splitlines()
    assert lines[0].split() == ["lm-eval", "(standard", "error)", "sft", "ppo"]
    assert lines[1].split() == ["arc", "acc", "0.2500", "(0.0200)", "0.2500", "(0.0200)"]
    assert lines[3].split() == ["arc", "exact_match,strict", "0.1250", "0.1250"]
    assert benchmark_tables.text_table(compared(sft={})["candidates"], ["sft"]) == ""


def test_the_page_has_the_column_the_figure_and_the_table(chain: Any) -> None:
    def page(report: dict[str, Any]) -> str:
        return render(report, chain.responses, Curves(), chain.made, side_by_side=1)

    assert "<h2>Benchmarks</h2>" not in page(chain.report)
    found = {"base": own(0, 0, 0, 0) | HARNESS, "sft": own(0, 1, 1, 1) | HARNESS, "ppo": own(0, 1, 0, 0) | HARNESS}
    candidates = {name: {**given, "benchmarks": found[name]} for name, given in chain.report["candidates"].items()}
    shown = page({**chain.report, "candidates": candidates})
    assert "<th>benchmark</th>" in shown
    assert "<td>75.0 %</td></tr>" in shown
    assert "<td>all (4)</td><td>100.0 % [51.0, 100.0]</td><td>25.0 % [4.6, 69.9]</td>" in shown
    assert "<td>a (2)</td><td>100.0 % [34.2, 100.0]</td>" in shown
    assert "<td>arc acc</td><td>0.2500 (0.0200)</td>" in shown
    titles = [figure.title for figure in figures({**chain.report, "candidates": candidates}, Curves())]
    assert titles == ["Win rate against sft", "Win rate by task family", "Held-out tasks"]


def test_a_candidate_that_is_no_model_has_no_place_among_the_benchmarks(chain: Any) -> None:
    found = {"base": {}, "sft": own(0, 1, 1, 1) | HARNESS, "ppo": own(0, 1, 0, 0) | HARNESS}
    candidates = {name: {**given, "benchmarks": found[name]} for name, given in chain.report["candidates"].items()}
    shown = render({**chain.report, "candidates": candidates}, chain.responses, Curves(), chain.made, side_by_side=1)
    assert "<tr><th></th><th>sft</th><th>ppo</th></tr>" in shown
    assert shown.count("<td>–</td></tr>") == 1  # base's cell in the column
    lines = benchmark_tables.text_table(candidates, ["base", "sft", "ppo"]).splitlines()
    assert lines[0].split()[-2:] == ["sft", "ppo"]
    titles = [figure.title for figure in figures({**chain.report, "candidates": candidates}, Curves())]
    assert "Held-out tasks" in titles

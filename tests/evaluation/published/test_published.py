from __future__ import annotations

import json
import math
import statistics
from pathlib import Path
from typing import Any

import pytest

from rlhf.artifacts import StageFolder
from rlhf.config import CompareConfig, Config, RunConfig, StageName, TextMetric
from rlhf.errors import UserError
from rlhf.evaluation.published.verdicts import win_rate
from stages import published as stage
from tests.evaluation.published.tables import table

SHARED = Path("/work/shared/data")
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")


def verdicts(path: Path, preferences: list[Any]) -> str:
    path.write_text(json.dumps([{"instruction": "x", "preference": preference} for preference in preferences]))
    return str(path)


def test_win_rate_counts_a_draw_as_half_and_what_has_no_verdict_not_at_all(tmp_path: Path) -> None:
    found = win_rate(verdicts(tmp_path / "v.json", [1, 2, 2, 0, 1.5, None, 1.25]))
    wins = [0, 1, 1, 0.5, 0.5, 0.25]
    assert found["win_rate"] == pytest.approx(100 * statistics.mean(wins))
    assert found["standard_error"] == pytest.approx(100 * statistics.stdev(wins) / math.sqrt(6))
    assert (found["n"], found["draws"], found["without_verdict"]) == (6, 2, 1)


@pytest.mark.parametrize(
    ("preferences", "problem"),
    [([1, 3], r"row 2: its `preference` is '3'"), ([True], "'True'"), (["2"], "'2'"), ([None], "holds no verdict")],
)
def test_verdicts_that_are_none_are_refused(tmp_path: Path, preferences: list[Any], problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        win_rate(verdicts(tmp_path / "v.json", preferences))


@pytest.mark.parametrize(
    ("settings", "problem"),
    [
        ({"samples": "x"}, "belong together"),
        ({"metric": TextMetric.bleu}, "belong together"),
        ({"samples": "x", "metric": TextMetric.bleu, "verdicts": "y"}, "leave one out"),
    ],
)
def test_half_a_question_is_refused(settings: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        CompareConfig(**settings)


def test_the_stage_prints_a_table_and_writes_cells_or_a_win_rate(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    samples = table(tmp_path / "s.csv", {"model_type": ["gpt", "ppo"]})
    for compare in (
        CompareConfig(samples=str(samples), metric=TextMetric.bleu),
        CompareConfig(verdicts=verdicts(tmp_path / "v.json", [1, 2])),
    ):
        run = RunConfig(name="mine", root=str(tmp_path / "runs"))
        stage.run(Config(stage=StageName.compare, compare=compare, run=run))
    printed = capsys.readouterr().out
    assert "ppo" in printed
    assert "win rate of the model under test: 50.00 %, standard error 50.00" in printed
    report = json.loads((tmp_path / "runs" / "mine" / "compare" / "report.json").read_text())
    assert report["win_rate"] == 50
    StageFolder(tmp_path / "runs" / "mine" / "compare").write_manifest(status="complete")
    with pytest.raises(UserError, match=r"holds a comparison of models; choose another run with run\.name=NAME"):
        stage.run(Config(stage=StageName.compare, compare=compare, run=run))
    assert json.loads((tmp_path / "runs" / "mine" / "compare" / "report.json").read_text()) == report


@needs_shared
def test_the_published_win_rate_of_alpaca_comes_out() -> None:
    found = win_rate(str(SHARED / "alpaca_eval" / "alpaca-7b.alpaca_eval_gpt4.annotations.json.gz"))
    assert round(found["win_rate"], 2) == 26.46
    assert round(found["standard_error"], 2) == 1.54
    assert found["n"] == 805

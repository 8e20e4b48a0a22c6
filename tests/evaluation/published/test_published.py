from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import CompareConfig, Config, RunConfig, StageName, TextMetric
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder
from stages import published as stage
from tests.support.published_tables import table


def verdicts(path: Path, preferences: list[Any]) -> str:
    path.write_text(json.dumps([{"instruction": "x", "preference": preference} for preference in preferences]))
    return str(path)


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

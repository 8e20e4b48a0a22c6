from __future__ import annotations

import csv
import json
import math
from pathlib import Path
from typing import Any

import pytest
from sacrebleu import corpus_bleu

from rlhf.artifacts import StageFolder
from rlhf.config import CompareConfig, Config, RunConfig, StageName, TextMetric
from rlhf.errors import UserError
from rlhf.evaluation.published.samples import cells
from stages import published as stage

SHARED = Path("/work/shared/data")
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")
TEXTS = ["the cat sat on the mat today", "None", "NA", "a dog ran\nacross the wide street", "nothing here is right"]
REFERENCES = ["the cat sat on the mat", "None", "NA", "a dog ran across the wide street", "something else entirely"]


def table(path: Path, groups: dict[str, list[str]], texts: list[str] = TEXTS) -> Path:
    """Every combination of the groups' values, with the same texts."""
    rows: list[dict[str, str]] = [{}]
    for name, values in groups.items():
        rows = [{**row, name: value} for row in rows for value in values]
    full = [
        {**row, "context": f"p{i}", "ref_text": REFERENCES[i], "sample": text}
        for row in rows
        for i, text in enumerate(texts)
    ]
    with path.open("w", newline="") as file:
        writer = csv.DictWriter(file, ["", *full[0]])
        writer.writeheader()
        writer.writerows({"": i, **row} for i, row in enumerate(full))
    return path


def scored(path: Path, metric: TextMetric) -> list[dict[str, Any]]:
    return cells(str(path), metric, bootstrap_samples=200, seed=0)


def verdicts(path: Path, preferences: list[Any]) -> str:
    path.write_text(json.dumps([{"instruction": "x", "preference": preference} for preference in preferences]))
    return str(path)


def test_bleu_is_sacrebleus_with_none_and_na_and_line_breaks_as_they_stand(tmp_path: Path) -> None:
    (cell,) = scored(table(tmp_path / "s.csv", {"model_type": ["gpt"]}), TextMetric.bleu)
    assert cell["bleu"] == pytest.approx(corpus_bleu(TEXTS, [REFERENCES]).score)
    assert cell["n"] == 5
    low, high = cell["bleu_ci"]
    assert low < cell["bleu"] < high


def test_cells_are_the_groups_that_the_table_has(tmp_path: Path) -> None:
    for groups in ({"model_type": ["a", "b"], "prompt_type": ["zeroshot", "fewshot"]}, {"model_type": ["a", "b"]}, {}):
        found = scored(table(tmp_path / "s.csv", groups), TextMetric.bleu)
        expected = math.prod(len(values) for values in groups.values())
        assert len(found) == expected
        assert all(set(groups) == set(cell) & {"model_type", "prompt_type"} for cell in found)
        assert len({tuple(cell[name] for name in groups) for cell in found}) == expected


def test_rouge_is_a_mean_of_f1_over_prompts(tmp_path: Path) -> None:
    (cell,) = scored(table(tmp_path / "s.csv", {}), TextMetric.rouge)
    perfect = 100.0
    # 6 of 7 words in common with 6: F1 is 2 * 6 / 13; the last has none.
    assert cell["rouge1"] == pytest.approx((100 * 12 / 13 + 3 * perfect + 0) / 5)
    assert set(cell) == {"n", *(f"{name}{end}" for name in ("rouge1", "rouge2", "rougeL") for end in ("", "_ci"))}


def test_samples_that_are_none_are_refused_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("context,ref_text\na,b\n")
    with pytest.raises(UserError, match=r"s\.csv, row 1: it has no text under `sample`; compare\.samples takes"):
        scored(path, TextMetric.bleu)
    path.write_text("context,ref_text,sample\na,b\n")
    with pytest.raises(UserError, match=r"s\.csv, row 1: it has 2 fields"):
        scored(path, TextMetric.bleu)
    path.write_text("context,ref_text,sample\n")
    with pytest.raises(UserError, match="holds no rows"):
        scored(path, TextMetric.bleu)


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
def test_instructgpts_samples_show_the_alignment_tax_and_what_ptx_wins_back() -> None:
    found = scored(SHARED / "instructgpt" / "fr_to_en_samples.csv", TextMetric.bleu)
    assert len(found) == 24
    assert all(cell["n"] == 100 for cell in found)
    bleu = {(cell["model_type"], cell["prompt_type"]): cell["bleu"] for cell in found}
    for size in ("xl", "6b", "175b"):
        for shown in ("zeroshot", "fewshot"):
            assert bleu[f"ppo-noptx-{size}", shown] < bleu[f"ppo-ptx-{size}", shown] < bleu[f"gpt-{size}", shown]

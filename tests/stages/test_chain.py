"""The whole chain from the command line, on the base models that ship, shrunk to seconds."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parents[2]
RECIPES = sorted(path.stem for path in (ROOT / "conf" / "recipe").glob("*.yaml"))


def rlhf(root: Path, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "rlhf", "debug=tiny", "launch.device=cpu", "launch.threads=1", *words]
    result = subprocess.run(
        [*command, f"run.root={root}", "tracker.progress=false"], cwd=ROOT, capture_output=True, text=True
    )
    assert result.returncode == 0, result.stdout + result.stderr
    return result


def test_one_command_runs_the_chain_and_the_second_time_skips_it(tmp_path: Path) -> None:
    first = rlhf(tmp_path, "model=sandbox-m")
    run = tmp_path / "demo"
    report = json.loads((run / "compare" / "report.json").read_text())
    assert {"base", "sft", "ppo"} <= set(report["candidates"])
    for candidate in report["candidates"].values():
        low, high = candidate["win_rate_ci"]
        assert 0 <= low <= candidate["win_rate"] <= high <= 1
        assert {"gold_score", "kl", "mean_tokens"} <= set(candidate)
    html = (run / "compare" / "report.html").read_text()
    assert 'src="data:image' in html
    assert "src=" not in html.replace('src="data:', "")  # self-contained: nothing is fetched
    assert "report.html" in first.stdout
    for stage in ("sft", "reward", "ppo"):
        assert json.loads((run / stage / "manifest.json").read_text())["status"] == "complete"
        assert (run / stage / "model" / "model.safetensors").is_file()
    assert (run / "ppo" / "value_model" / "model.safetensors").is_file()

    before = (run / "ppo" / "model" / "model.safetensors").stat().st_mtime_ns
    again = rlhf(tmp_path, "model=sandbox-m")
    assert again.stdout.count("finished already") == 4
    assert (run / "ppo" / "model" / "model.safetensors").stat().st_mtime_ns == before


def test_a_sweep_shares_its_parents_and_shows_its_jobs_side_by_side(tmp_path: Path) -> None:
    rlhf(tmp_path, "model=sandbox-m", "stage=sft")
    rlhf(tmp_path, "model=sandbox-m", "stage=reward")
    sweep = ("model=sandbox-m", "-m", "stage=ppo", "ppo.kl.coef=0,0.5", "report.best_of=4", "report.few_shot=2")
    rlhf(tmp_path, *sweep)
    run = tmp_path / "demo"
    assert not (run / "sweep" / "ppo.kl.coef=0" / "sft").exists()
    report = json.loads((run / "report" / "report.json").read_text())
    points = {point["label"]: point for point in report["points"]}
    assert {"base", "base-few-shot", "sft", "ppo KL 0", "ppo KL 0.5"} <= set(points)
    for label in ("ppo KL 0", "ppo KL 0.5"):
        low, high = points[label]["wins_sft"]["ci"]
        assert 0 <= low <= points[label]["wins_sft"]["mean"] <= high <= 1
        assert points[label]["kl"]["mean"] is not None
        assert points[label]["benchmark"]["mean"] > 0
    assert points["sft"]["kl"]["mean"] == 0
    assert [row["n"] for row in report["best_of_n"]["sandbox-m"]] == [1, 2, 4]
    html = (run / "report" / "report.html").read_text()
    assert "src=" not in html.replace('src="data:', "")
    header, *lines = (run / "report" / "points.csv").read_text().splitlines()
    assert header.startswith("label,method,base,parameters")
    assert len(lines) == len(points)

    answers = {path.name: path.stat().st_mtime_ns for path in (run / "answers").iterdir()}
    rlhf(
        tmp_path,
        "model=sandbox-m",
        "stage=report",
        "report.best_of=4",
        "report.few_shot=2",
        "report.matched_kl=[0.001]",
    )
    assert {path.name: path.stat().st_mtime_ns for path in (run / "answers").iterdir()} == answers


@pytest.mark.parametrize("recipe", RECIPES)
def test_every_recipe_takes_a_step_of_each_stage(tmp_path: Path, recipe: str) -> None:
    stage = "sft" if recipe.endswith("_init") else "all"
    rlhf(tmp_path, f"recipe={recipe}", "model.path=builtin:sandbox-m", f"stage={stage}")
    for name in ("sft",) if stage == "sft" else ("sft", "reward", "ppo", "compare"):
        manifest = json.loads((tmp_path / "demo" / name / "manifest.json").read_text())
        assert manifest["status"] == "complete"
        lines = (tmp_path / "demo" / name / "metrics.jsonl").read_text().splitlines()
        assert name == "compare" or max(json.loads(line)["step"] for line in lines) >= 1
    if stage == "all" and recipe.startswith("instructgpt"):
        assert any("policy/ptx_loss" in line for line in (tmp_path / "demo/ppo/metrics.jsonl").read_text().splitlines())

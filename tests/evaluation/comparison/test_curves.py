from __future__ import annotations

import json
from pathlib import Path

from rlhf.evaluation.comparison.curves import load_curves


def stage(folder: Path, name: str, rows: list[dict[str, float]], coefficient: float | None = None) -> Path:
    (folder / "model").mkdir(parents=True)
    (folder / "manifest.json").write_text(json.dumps({"stage": name, "status": "complete"}))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    if coefficient is not None:
        (folder / "config.yaml").write_text(f"ppo:\n  kl:\n    coef: {coefficient}\n")
    return folder / "model"


def test_only_candidates_that_ppo_trained_have_curves_and_a_coefficient(tmp_path: Path) -> None:
    sft = stage(tmp_path / "sft", "sft", [{"step": 1, "train/loss": 1.0}])
    reward = stage(tmp_path / "reward", "reward", [{"step": 1, "eval/accuracy": 0.7}])
    ppo = stage(tmp_path / "ppo", "ppo", [{"step": 1, "objective/kl": 0.5}], coefficient=0.02)
    candidates = {"base": "some/hub-id", "sft": str(sft), "ppo": str(ppo)}
    curves = load_curves(candidates, {"sft": sft, "reward_model": reward, "ppo": ppo})
    assert curves.sft == [{"step": 1, "train/loss": 1.0}]
    assert curves.reward == [{"step": 1, "eval/accuracy": 0.7}]
    assert curves.ppo == {"ppo": [{"step": 1, "objective/kl": 0.5}]}
    assert curves.kl_coef == {"ppo": 0.02}


def test_models_from_elsewhere_have_no_curves(tmp_path: Path) -> None:
    (tmp_path / "downloaded").mkdir()
    curves = load_curves({"a": "gpt2", "b": str(tmp_path / "downloaded")}, {"sft": tmp_path / "downloaded"})
    assert (curves.sft, curves.reward, curves.ppo, curves.kl_coef) == ([], [], {}, {})

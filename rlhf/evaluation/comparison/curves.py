"""What earlier stages logged, read back for the report's plots."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from rlhf.runtime.folder import StageFolder
from rlhf.runtime.jsonl import read_jsonl


@dataclass(frozen=True)
class Curves:
    """Lines of metrics.jsonl by stage; empty where a stage's folder is not there."""

    sft: list[dict[str, Any]] = field(default_factory=list)
    reward: list[dict[str, Any]] = field(default_factory=list)
    ppo: dict[str, list[dict[str, Any]]] = field(default_factory=dict)  # by candidate
    kl_coef: dict[str, float] = field(default_factory=dict)  # of each PPO candidate whose config is beside it


def series(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[list[float], list[float]]:
    """Steps and values of one metric, where it was logged and finite."""
    points = [(row["step"], row[name]) for row in rows if row.get(name) is not None]
    return [float(step) for step, _ in points], [float(value) for _, value in points]


def load_curves(candidates: Mapping[str, str], parents: Mapping[str, Path]) -> Curves:
    """The curves of this run's SFT and reward stages, and of every candidate that PPO trained here.

    candidates: name -> model path; a model that a stage made lies in <stage folder>/model.
    """
    curves = Curves(sft=_rows(parents.get("sft")), reward=_rows(parents.get("reward_model")))
    for name, path in candidates.items():
        folder = Path(path).parent
        manifest = StageFolder(folder).manifest if Path(path).is_dir() else None
        if manifest is None or manifest.get("stage") != "ppo":
            continue
        curves.ppo[name] = _rows(Path(path))
        config_path = folder / "config.yaml"
        if config_path.exists():
            config = yaml.safe_load(config_path.read_text(encoding="utf-8"))
            curves.kl_coef[name] = float(config["ppo"]["kl"]["coef"])
    return curves


def _rows(model: Path | None) -> list[dict[str, Any]]:
    return [] if model is None else read_jsonl(model.parent / "metrics.jsonl")

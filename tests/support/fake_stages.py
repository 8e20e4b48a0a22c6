"""Stages that write down what they were given, so that what is round them can be tested in milliseconds."""

from __future__ import annotations

import dataclasses
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain import agreement, source
from rlhf.config import Config, RunConfig, StageName
from rlhf.runtime.folder import StageFolder
from rlhf.training.context import StageContext


class FakeSource:
    gold = None

    def __init__(self, rows: int) -> None:
        self.rows = rows

    def fingerprint(self) -> dict[str, Any]:
        return {"rows": self.rows}


class World:
    """Fake stages that write down what they were given and save a model made of it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.calls: list[StageContext] = []
        self.fail: dict[str, BaseException] = {}
        self.rows = 10
        self.bad_row = False
        self.tokenizers: dict[str, str] = {}
        self.base = root / "base"
        self.save(self.base, "base")

    def save(self, folder: Path, text: str) -> Path:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "config.json").write_text("{}")
        (folder / "model.safetensors").write_text(text)
        return folder

    def config(self, stage: str = "all", name: str = "demo", **nodes: Any) -> Config:
        config = Config(
            stage=StageName(stage),
            run=RunConfig(name=name, root=str(self.root / "runs"), parents=nodes.pop("parents", None)),
        )
        config.model.path = str(self.base)
        for node, values in nodes.items():
            if isinstance(values, dict):
                config = dataclasses.replace(config, **{node: dataclasses.replace(getattr(config, node), **values)})
            else:
                config = dataclasses.replace(config, **{node: values})
        return config

    def folder(self, path: str) -> StageFolder:
        return StageFolder(self.root / "runs" / path)

    def ran(self) -> list[str]:
        """The stages that ran since the last question."""
        names = [context.folder.path.relative_to(self.root / "runs").as_posix() for context in self.calls]
        self.calls.clear()
        return names

    def run_stage(self, context: StageContext) -> dict[str, float]:
        self.calls.append(context)
        stage = context.config.stage.value
        if stage in self.fail:
            raise self.fail[stage]
        if stage not in ("compare", "report"):
            seen = {role: path.joinpath("model.safetensors").read_text()[:20] for role, path in context.parents.items()}
            self.save(context.folder.model_dir, f"{stage} {context.config.seed} {context.config.ppo.kl.coef} {seen}")
        context.tracker.log(1, {"train/loss": 1.0})
        return {"eval/loss": 0.5, "objective/kl": 2.0}


@pytest.fixture
def world(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> World:
    made = World(tmp_path)
    for stage in ("pretrain", "sft", "reward", "ppo", "compare", "report", "self_instruct"):
        module = types.ModuleType(f"stages.{stage}")
        module.run = made.run_stage  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, f"stages.{stage}", module)

    def load_source(config: Any, seed: int, bad_rows_path: Path, *, show_progress: bool) -> FakeSource:
        if made.bad_row:
            bad_rows_path.write_text("row 3\n")
        return FakeSource(made.rows)

    monkeypatch.setattr(source, "load_source", load_source)
    monkeypatch.setattr(
        agreement,
        "tokenizer_fingerprint",
        lambda path, config: {
            "tokenizer_hash": made.tokenizers.get(str(path), "t"),
            "template_hash": config.data.template.value,
        },
    )
    return made

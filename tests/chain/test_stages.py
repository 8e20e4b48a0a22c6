"""Stages describe themselves: what their declarations decide, and that a new one needs nothing but its own."""

from __future__ import annotations

import sys
import types
from pathlib import Path

import pytest

from rlhf.chain import runner, stages
from rlhf.chain.parents import Search
from rlhf.chain.place import Place, reaching, run_folder
from rlhf.chain.stage import DATA_READ, Keys, Read, Stage
from rlhf.config import Config, StageName
from rlhf.config.keys import all_keys
from rlhf.errors import UserError
from tests.support.fake_stages import World, world

__all__ = ["world"]  # the fixture


@pytest.fixture
def polish(world: World, monkeypatch: pytest.MonkeyPatch) -> Stage:
    """A stage of this test's own, after SFT: its name in the config, an outline, a declaration."""
    name = object.__new__(StageName)
    name._name_ = name._value_ = "polish"
    outline = types.ModuleType("stages.polish")
    outline.run = world.run_stage  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "stages.polish", outline)

    def parents(search: Search) -> dict[str, Path]:
        return {"policy": search.needed(StageName.sft, "polish.policy")}

    def recipe(config: Config, source: object) -> str | None:
        return config.compare.baseline

    stage = Stage(
        name,
        decided_by=(Keys("sft", but=("sft.epochs",)), Keys("seed")),
        parents=parents,
        reads={"data": DATA_READ, "judge_prompt": Read(recipe, "another recipe")},
        headline=("eval/loss",),
        makes=("polished model", "model"),
        tokens_of="policy",
    )
    monkeypatch.setitem(stages.STAGES, name, stage)
    return stage


def run(world: World, stage: Stage, **nodes: object) -> None:
    config = world.config("sft", **nodes)
    runner.run_stage(config, stage, Place(run_folder(config)))


def test_a_stage_of_ones_own_is_run_skipped_and_refused(
    world: World, polish: Stage, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError, match=r"The sft model that polish needs is not in .*stage=sft"):
        run(world, polish)
    runner.run(world.config("sft"))
    world.ran()
    run(world, polish)
    (context,) = world.calls
    assert context.parents == {"policy": world.folder("demo/sft").model_dir}
    assert world.ran() == ["demo/polish"]
    manifest = world.folder("demo/polish").manifest or {}
    assert manifest["stage"] == "polish"
    assert "sft.epochs" not in manifest["config"]
    assert manifest["tokenizer_hash"] == "t"
    assert "polish: done in" in capsys.readouterr().out

    run(world, polish, sft={"epochs": 5})  # which does not decide it
    assert world.ran() == []
    with pytest.raises(UserError, match=r"belongs to another config \(sft\.batch_size"):
        run(world, polish, sft={"batch_size": 16})
    with pytest.raises(UserError, match="another recipe"):
        run(world, polish, compare={"baseline": "ppo"})


def test_a_sweep_reaches_a_new_stage_through_all_that_stand_above_it(polish: Stage) -> None:
    assert reaching(["sft.epochs=1", "judge.names=[gold]", "run.name=x"], polish.name) == (
        "sft.epochs=1",
        "judge.names=[gold]",
    )
    assert reaching(["polish.strength=1"], StageName.ppo) == ()
    assert reaching(["polish.strength=1"], polish.name) == ("polish.strength=1",)


@pytest.mark.parametrize("stage", stages.STAGES.values(), ids=lambda stage: stage.name.value)
def test_a_declaration_names_keys_that_there_are(stage: Stage) -> None:
    keys = list(all_keys())
    for decided in stage.decided_by:
        for node in (decided.node, *decided.but):
            assert any(key == node or key.startswith(f"{node}.") for key in keys), node
    assert set(stage.named) <= set(keys)
    assert not any(stage.decides(key) for key in stage.named), "a path stands for what lies there"


def test_every_stage_is_declared_or_has_no_run() -> None:
    assert {StageName.all, *stages.STAGES, *stages.WITHOUT_A_RUN} == set(StageName)

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoModelForCausalLM

from rlhf.config import CompareConfig, Config
from rlhf.errors import UserError
from rlhf.evaluation.answering.candidates import Candidate, How, candidates_of, describe, parameters
from rlhf.runtime.folder import StageFolder
from tests.support.tiny import save_tiny_model

CHAIN = {name: Path(f"/m/{name}") for name in ("base", "sft", "ppo", "reward_model")}


def found(parents: dict[str, Path] = CHAIN, **compare: Any) -> dict[str, Candidate]:
    return candidates_of(parents, Config(compare=CompareConfig(**compare)))


def test_the_chain_and_whatever_is_asked_for_in_the_order_of_the_chain() -> None:
    parents = {**CHAIN, "candidates/mine": Path("/m/mine")}
    candidates = found(parents, few_shot=3, best_of=[16, 4], outputs={"theirs": "f.jsonl"})
    assert list(candidates) == [
        *("base", "base-few-shot", "sft", "sft-best-of-4", "sft-best-of-16", "ppo", "mine", "theirs")
    ]
    assert candidates["base-few-shot"] == Candidate("base-few-shot", "/m/base", How.few_shot, 3)
    assert candidates["sft-best-of-16"] == Candidate("sft-best-of-16", "/m/sft", How.best_of, 16)
    assert candidates["theirs"] == Candidate("theirs", "f.jsonl", How.outputs)
    assert candidates["mine"] == Candidate("mine", "/m/mine")
    assert list(found()) == ["base", "sft", "ppo"]


def test_a_candidate_may_stand_in_for_a_stage_that_the_run_lacks() -> None:
    named = {"base": Path("/m/base"), "candidates/sft": Path("/m/other")}
    assert found(named, candidates={"sft": "builtin:x"}, best_of=[2])["sft-best-of-2"].path == "/m/other"


@pytest.mark.parametrize(
    ("compare", "message"),
    [
        ({"baseline": "best"}, r"compare\.baseline=best is none of the candidates, which are base, sft, ppo; "),
        ({"candidates": {"ppo": "/m/x"}}, r"compare\.candidates names ppo, which is /m/ppo of this run already"),
        ({"outputs": {"sft": "f.jsonl"}}, r"compare\.outputs names sft, which is /m/sft of this run"),
        ({"candidates": {"base-few-shot": "/m/x"}, "few_shot": 1}, "names base-few-shot"),
    ],
)
def test_a_name_that_is_none_or_is_taken_is_refused(compare: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        found(**compare)


def test_what_needs_a_model_that_is_not_there_is_refused() -> None:
    with pytest.raises(UserError, match=r"compare\.best_of needs the model sft.*compare\.candidates\.sft=PATH"):
        found({"base": Path("/m/base")}, best_of=[4], baseline="base")
    with pytest.raises(UserError, match=r"compare\.few_shot needs the model base"):
        found({"sft": Path("/m/sft")}, few_shot=4)


def stage(folder: Path, name: str, config: str = "") -> str:
    StageFolder(folder).write_manifest(stage=name, status="complete", seed=5)
    (folder / "config.yaml").write_text(config)
    return save_tiny_model(folder / "model")


def ppo_config(ptx: float) -> str:
    return f"ppo:\n  kl:\n    coef: 0.02\n  ptx:\n    coef: {ptx}\n"


def test_a_policy_is_described_by_how_it_was_trained(tmp_path: Path) -> None:
    for ptx, method in ((0.0, "ppo"), (27.8, "ppo-ptx")):
        path = stage(tmp_path / method, "ppo", ppo_config(ptx))
        described = describe(Candidate("ppo", path))
        assert described.pop("parameters") > 0
        assert described == {"method": method, "kl_coef": 0.02, "ptx_coef": ptx, "seed": 5}


def test_other_candidates_are_described_by_where_their_model_comes_from(tmp_path: Path) -> None:
    sft = stage(tmp_path / "sft", "sft")
    methods = {
        Candidate("mine", sft): ("sft", 5),
        Candidate("mine", stage(tmp_path / "pretrain", "pretrain")): ("base", 5),
        Candidate("mine", save_tiny_model(tmp_path / "elsewhere")): ("other", None),
        Candidate("base", save_tiny_model(tmp_path / "elsewhere")): ("base", None),
        Candidate("base-few-shot", sft, How.few_shot, 4): ("base-few-shot", 5),
        Candidate("sft-best-of-4", sft, How.best_of, 4): ("best-of-n", 5),
        Candidate("theirs", "f.jsonl@x", How.outputs): ("outputs", None),
    }
    for candidate, (method, seed) in methods.items():
        described = describe(candidate)
        assert (described["method"], described["seed"]) == (method, seed)
        assert described["kl_coef"] is described["ptx_coef"] is None
        assert (described["parameters"] is None) == (method == "outputs")


@pytest.mark.parametrize("tied", [False, True])
def test_parameters_are_the_weights_of_the_model_tied_ones_once(tmp_path: Path, tied: bool) -> None:
    path = save_tiny_model(tmp_path / "tiny", tied=tied)
    model = AutoModelForCausalLM.from_pretrained(path)
    assert parameters(path) == sum(parameter.numel() for parameter in model.parameters())
    model.save_pretrained(tmp_path / "parts", max_shard_size="20KB")
    assert len(list((tmp_path / "parts").glob("*.safetensors"))) > 1
    assert parameters(str(tmp_path / "parts")) == parameters(path)
    (tmp_path / "tiny" / "config.json").write_text('{"model_type": "nobody_has_this"}')
    assert parameters(path) is None
    assert parameters("nobody/has-this-model") is None

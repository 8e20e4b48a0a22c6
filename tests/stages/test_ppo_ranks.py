"""PPO on several processes: the same episodes, numbers and weights as on one."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf.config import (
    Advantage,
    Config,
    DType,
    Keep,
    KLConfig,
    KLPlacement,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    PtxConfig,
    ValueHead,
    ZeroConfig,
)
from tests.stages import test_ppo
from tests.stages.test_ppo import logged, run, settings, weights
from tests.support.ranks import run_ranks

parents = test_ppo.parents  # the fixture

RICH: dict[str, Any] = {
    "episodes": 45,
    "batch_size": 15,
    "num_minibatches": 3,  # of 5 rows: ranks get different numbers of them
    "ema_decay": 0.9,
    "value_warmup_iterations": 1,
    "scale_scores": True,
    "whiten_rewards": True,
    "kl": KLConfig(coef=0.1, target=2.0, horizon=50),
    "ptx": PtxConfig(0.5, 0.2, 8),
    "micro_batch_tokens": 64,
}
CASES: dict[str, dict[str, Any]] = {
    "rich": RICH,
    "group": {
        "episodes": 32,
        "advantage": Advantage.group,
        "samples_per_prompt": 4,
        "kl": KLConfig(coef=0.1, placement=KLPlacement.loss),
        "target_kl": 0.02,
        "entropy_coef": 0.01,
    },
    "shared": {"episodes": 32, "value_head": ValueHead.shared},
}


def run_on(
    ranks: int,
    config: Config,
    models: dict[str, Path],
    folder: Path,
    *,
    resume: bool = False,
    persistent_numbers: int = 0,  # else nothing of a tiny model would be sharded
) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    arguments = folder.with_suffix(".pickle")
    arguments.write_bytes(pickle.dumps((config, models, folder, resume, persistent_numbers)))
    run_ranks(ranks, "tests.support.ppo_rank", str(arguments))


def assert_same(one: Path, other: Path) -> None:
    rows, others = logged(one), logged(other)
    assert len(rows) == len(others)
    for row, expected in zip(others, rows, strict=True):
        named = {name for name in expected if not name.startswith("time/")}
        assert named == {name for name in row if not name.startswith("time/")}
        assert {name: row[name] for name in named} == pytest.approx({n: expected[n] for n in named}, abs=2e-4, rel=2e-4)
    drawn, expected_drawn = (
        [json.loads(line)["response"] for line in (path / "samples.jsonl").read_text().splitlines()]
        for path in (other, one)
    )
    assert drawn == expected_drawn
    for name, weight in weights(one / "model").items():
        torch.testing.assert_close(weights(other / "model")[name], weight, atol=5e-5, rtol=1e-4)


@pytest.mark.parametrize("case", CASES)
def test_two_processes_end_where_one_does(
    case: str,
    parents: Callable[[str], dict[str, Path]],
    tmp_path: Path,
) -> None:
    config = settings(**CASES[case])
    run(config, parents("llama"), tmp_path / "one")
    run_on(2, config, parents("llama"), tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "two")


SHARDED = RICH | {"keep": Keep.best, "evaluate_every": 1, "target_kl": 0.002}


@pytest.mark.parametrize("stage", [pytest.param(1, marks=pytest.mark.slow), pytest.param(2, marks=pytest.mark.slow), 3])
def test_sharded_processes_end_where_one_whole_process_does(
    stage: int, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings(**SHARDED)
    run(config, parents("llama"), tmp_path / "one")
    # Steps that were accumulated and left out, after which others follow: what they left behind would show.
    assert 1.0 in [row.get("policy/early_stop") for row in logged(tmp_path / "one")[:-1]]
    config.zero = ZeroConfig(stage=stage)
    run_on(2, config, parents("llama"), tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "two")


def test_weights_too_small_to_be_sharded_are_averaged_and_kept_like_all_others(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    """DeepSpeed holds them whole beside their parts: an average written into parts alone would not be what is run."""
    config = settings(**SHARDED)
    run(config, parents("llama"), tmp_path / "one")
    config.zero = ZeroConfig(stage=3)
    run_on(2, config, parents("llama"), tmp_path / "two", persistent_numbers=100)  # norms
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("change", ["layer by layer", "offload", "checkpointing", "adapters"])
def test_what_saves_memory_changes_no_result(
    change: str, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings(**(SHARDED | {"episodes": 30}))
    if change == "adapters":
        config.model.lora = LoraConfig(r=4)
    run(config, parents("llama"), tmp_path / "one")
    config.zero = ZeroConfig(stage=3, offload=change == "offload")
    config.rollout.gather = change != "layer by layer"
    config.model.gradient_checkpointing = change == "checkpointing"
    run_on(2, config, parents("llama"), tmp_path / "two")
    assert_same(tmp_path / "one", tmp_path / "two")


@pytest.mark.slow
@pytest.mark.parametrize("stage", [1, 3])
def test_sharded_bfloat16_weights_have_float32_masters(
    stage: int, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings(episodes=30, batch_size=15, num_minibatches=3, optim=OptimConfig(lr=1e-4, min_lr_ratio=1.0))
    config.model.dtype = DType.bfloat16
    run(config, parents("llama"), tmp_path / "one")
    config.zero = ZeroConfig(stage=stage)
    run_on(2, config, parents("llama"), tmp_path / "two")
    assert {weight.dtype for weight in weights(tmp_path / "two" / "model").values()} == {torch.bfloat16}
    one, two = (load_file(tmp_path / name / "checkpoints" / "step-2" / "policy.safetensors") for name in ("one", "two"))
    assert {weight.dtype for weight in two.values()} == {torch.float32}
    before = weights(parents("llama")["policy"])
    moved = torch.cat([(two[name] - before[name].bfloat16().float()).flatten() for name in two])
    expected = torch.cat([(one[name] - before[name].bfloat16().float()).flatten() for name in one])
    # Rounding of gradients turns some of Adam's first steps round; the way is the same.
    assert torch.nn.functional.cosine_similarity(moved, expected, dim=0) > 0.9
    for row in logged(tmp_path / "two")[:1]:
        assert row["eval/kl"] == 0


@pytest.mark.slow
@pytest.mark.parametrize(("before", "after"), [((2, 3), (3, 2)), ((3, 1), (1, 0)), ((1, 0), (2, 3))])
def test_a_run_goes_on_with_other_processes_and_another_stage(
    before: tuple[int, int], after: tuple[int, int], parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    """(processes, ZeRO stage) before a run is interrupted, and after."""
    config = settings(**(SHARDED | {"ptx": PtxConfig()}))  # what text comes when depends on the number of episodes
    run(config, parents("llama"), tmp_path / "one")
    for episodes, (ranks, stage) in ((30, before), (45, after)):
        config.ppo.episodes = episodes
        config.zero = ZeroConfig(stage=stage)
        run_on(ranks, config, parents("llama"), tmp_path / "more", resume=episodes == 45)
    assert_same(tmp_path / "one", tmp_path / "more")


@pytest.mark.slow
def test_three_processes_share_adapters_and_a_run_that_one_began(
    parents: Callable[[str], dict[str, Path]],
    tmp_path: Path,
) -> None:
    config = settings(**(RICH | {"ptx": PtxConfig()}))
    config.model = ModelConfig(lora=LoraConfig(r=4))
    run(config, parents("llama"), tmp_path / "one")
    config.ppo.episodes = 30
    run(config, parents("llama"), tmp_path / "three")
    config.ppo.episodes = 45
    run_on(3, config, parents("llama"), tmp_path / "three", resume=True)
    assert_same(tmp_path / "one", tmp_path / "three")

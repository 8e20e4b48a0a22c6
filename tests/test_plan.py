"""stage=plan counts what the ZeRO paper counts, and names a change that makes a stage fit."""

from __future__ import annotations

import dataclasses

import pytest

from rlhf import plan
from rlhf.config import (
    CHAIN,
    Config,
    DType,
    LaunchConfig,
    LoraConfig,
    ModelConfig,
    PlanConfig,
    PPOConfig,
    StageName,
    ZeroConfig,
)
from rlhf.models.load import load_causal_lm

# 7.5 billion parameters on 64 GPUs, the example of arXiv:1910.02054, figure 1.
SHAPE = plan.Shape("7.5B", 7_500_000_000, 7_500_000_000, 32, 4096, 50_000, 2 * 32 * 4096)


def config(stage: int = 0, ranks: int = 64, *, dtype: DType = DType.bfloat16, offload: bool = False) -> Config:
    return Config(
        model=ModelConfig(dtype=dtype),
        zero=ZeroConfig(stage, offload),
        launch=LaunchConfig(gpus_per_node=ranks),
    )


@pytest.mark.parametrize(("stage", "gigabytes"), [(1, 31.4), (2, 16.6), (3, 1.9)])
def test_model_states_are_those_of_the_zero_paper(stage: int, gigabytes: float) -> None:
    need = plan.need(config(stage), StageName.sft, SHAPE)
    assert (need.weights + need.gradients + need.optimizer) / 1e9 == pytest.approx(gigabytes, abs=0.05)


def test_without_sharding_a_number_takes_sixteen_bytes() -> None:
    need = plan.need(config(0), StageName.sft, SHAPE)
    assert need.weights + need.gradients + need.optimizer == 16 * SHAPE.weights


def test_ppo_holds_four_models_and_trains_two() -> None:
    sft = plan.need(config(1, 1), StageName.sft, SHAPE)
    ppo = plan.need(config(1, 1), StageName.ppo, SHAPE)
    assert ppo.weights == 4 * sft.weights
    assert ppo.optimizer == 2 * sft.optimizer
    adapters = dataclasses.replace(SHAPE, trained=40_000_000)
    shared = Config(model=ModelConfig(dtype=DType.bfloat16, lora=LoraConfig(r=16)), ppo=PPOConfig(share_base=True))
    need = plan.need(shared, StageName.ppo, adapters)
    assert need.weights == 2 * SHAPE.weights
    assert need.optimizer == 2 * 12 * 40_000_000


def test_counts_are_the_model_s_own() -> None:
    shape = plan.shape_of(Config())
    model = load_causal_lm("builtin:sandbox-m", ModelConfig())
    assert shape.weights == model.num_parameters()
    assert shape.trained == shape.weights
    assert plan.shape_of(Config(model=ModelConfig(lora=LoraConfig(r=4)))).trained < 0.2 * shape.weights


def test_advice_is_the_first_change_that_fits() -> None:
    asked = config(0, 8)
    limit = 80 * plan.GIB
    for stage in CHAIN[:3]:
        assert plan.need(asked, stage, SHAPE).total > limit
        words = plan.advice(asked, stage, SHAPE, limit)
        assert words is not None
        assert "zero=" in words
    assert plan.advice(config(0, 1), StageName.ppo, dataclasses.replace(SHAPE, weights=10**12), limit) is None


def test_the_table_has_a_line_a_stage_and_says_what_to_change() -> None:
    table = plan.table(dataclasses.replace(Config(), plan=PlanConfig(gpu_memory_gib=1.0)))
    for stage in CHAIN:
        assert f"\n{stage.value} " in table
    assert "does not fit" in table
    assert "To make it fit:" in table
    assert "does not fit" not in plan.table(Config())

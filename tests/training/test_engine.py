"""The engine steps as AdamW does, keeps float32 masters, and goes on from a checkpoint with the same bits."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from torch import nn

from rlhf.config import ModelConfig, OptimConfig
from rlhf.errors import UserError
from rlhf.models.attention import EAGER_TOKENS, with_attention
from rlhf.training.engine import Engine, EngineState, NonFiniteLossError, lr_factor


def build(dtype: torch.dtype = torch.float32, **optim: float) -> Engine:
    torch.manual_seed(0)
    return Engine(nn.Linear(3, 2).to(dtype), OptimConfig(**optim))  # type: ignore[arg-type]


def train(engine: Engine, steps: int, seed: int = 0) -> list[float]:
    generator = torch.Generator().manual_seed(seed)
    norms = []
    for _ in range(steps):
        x = torch.randn(4, 3, generator=generator)
        engine.backward(engine.model(x.to(engine.parameters[0].dtype)).float().square().mean())
        norms.append(engine.step())
    return norms


def weights(engine: Engine) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in engine.parameters])


def test_gradients_are_clipped_to_the_limit_and_the_norm_is_that_before() -> None:
    clipped, free = build(lr=0.1, max_grad_norm=1e-6), build(lr=0.1, max_grad_norm=0)
    assert train(clipped, 1) == pytest.approx(train(free, 1))
    # AdamW's first step is lr * g / (|g| + eps): clipping shows only where g is near eps.
    tiny, large = build(lr=0.1, max_grad_norm=1e-9), build(lr=0.1, max_grad_norm=0)
    train(tiny, 1), train(large, 1)
    start = weights(build())
    assert (weights(tiny) - start).abs().max() < (weights(large) - start).abs().max()


def test_bfloat16_weights_gather_updates_too_small_for_them() -> None:
    engine = build(torch.bfloat16, lr=1e-5)
    start = weights(engine).clone()
    train(engine, 1)
    one_step = (weights(engine) != start).sum()
    train(engine, 400)
    assert one_step < len(start)
    assert bool((weights(engine) != start).all())
    assert engine.masters[0].dtype == torch.float32


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loaded_engine_goes_on_with_the_same_bits(dtype: torch.dtype, tmp_path: Path) -> None:
    whole, stopped, resumed = (build(dtype, lr=0.01) for _ in range(3))
    train(whole, 3)
    train(whole, 3, seed=1)
    train(stopped, 3)
    stopped.state().save(tmp_path, "policy")
    resumed.load(EngineState.load(tmp_path, "policy"))
    train(resumed, 3, seed=1)
    assert torch.equal(weights(whole), weights(resumed))


def test_a_gradient_that_is_not_finite_moves_nothing() -> None:
    engine = build()
    before = weights(engine).clone()
    engine.backward(engine.model(torch.full((1, 3), math.inf)).sum())
    with pytest.raises(NonFiniteLossError):
        engine.step()
    assert torch.equal(weights(engine), before)


def test_weight_decay_falls_on_matrices_alone() -> None:
    decayed, plain = build(lr=0.1, weight_decay=0.5), build(lr=0.1)
    train(decayed, 1), train(plain, 1)
    (weight, bias), (plain_weight, plain_bias) = decayed.parameters, plain.parameters
    assert torch.equal(bias, plain_bias)
    assert not torch.equal(weight, plain_weight)


def test_learning_rate_rises_from_a_tenth_and_falls_to_its_floor() -> None:
    factors = [lr_factor(i, 21, min_lr_ratio=0.1, warmup_steps=10, warmup_from=0.1) for i in range(21)]
    assert factors[0] == pytest.approx(0.1)
    assert factors[5] == pytest.approx(0.55)
    assert factors[10] == 1
    assert factors[15] == pytest.approx(0.55)
    assert factors[20] == pytest.approx(0.1)
    assert {lr_factor(i, 5, min_lr_ratio=1.0, warmup_steps=0, warmup_from=0.1) for i in range(5)} == {1.0}


def test_an_engine_loaded_before_its_first_step_begins_where_the_other_would() -> None:
    first, second = build(lr=0.01), build(lr=0.01)
    train(second, 1)
    fresh = build(lr=0.01)
    second = build(lr=0.01)
    second.load(fresh.state())
    train(first, 2), train(second, 2)
    assert torch.equal(weights(first), weights(second))


def test_what_needs_loss_scaling_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.dtype=float16"):
        Engine(nn.Linear(1, 1).half(), OptimConfig())


@pytest.mark.parametrize(
    ("asked", "device", "longest", "chosen"),
    [
        (None, "cpu", EAGER_TOKENS, "eager"),
        (None, "cpu", EAGER_TOKENS + 1, None),
        (None, "cuda", 64, None),
        ("sdpa", "cpu", 64, "sdpa"),
    ],
)
def test_attention_is_chosen_for_short_sequences_on_a_cpu_alone(
    asked: str | None, device: str, longest: int, chosen: str | None
) -> None:
    config = ModelConfig(attn_implementation=asked)
    assert with_attention(config, torch.device(device), longest).attn_implementation == chosen

"""Leaving out what the last layer adds where nobody reads changes neither outputs nor gradients of what is read."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch

from rlhf.models import last_layer
from rlhf.models.last_layer import last_layer_only_at
from rlhf.ppo.shared_value import SharedValueModel
from tests.support.tiny_ppo import ARCHITECTURES, tiny_model

IDS = torch.randint(1, 32, (3, 12), generator=torch.Generator().manual_seed(0))
# Position 0 among them, which the fill repeats, and none of the second row.
POSITIONS = torch.tensor([7, 0, 3, 30, 26])


def loss_at(logits: torch.Tensor) -> torch.Tensor:
    return logits.flatten(0, 1)[POSITIONS].log_softmax(-1)[:, 5].sum()


def gradients(model: Any, loss: torch.Tensor) -> dict[str, torch.Tensor]:
    model.zero_grad()
    loss.backward()
    return {name: p.grad.clone() for name, p in model.named_parameters() if p.grad is not None}


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_outputs_and_gradients_are_those_of_the_whole_layer(architecture: str) -> None:
    model = tiny_model(architecture)
    plain = model(IDS).logits
    expected = gradients(model, loss_at(plain))
    with last_layer_only_at(model, POSITIONS):
        ours = model(IDS).logits
    torch.testing.assert_close(ours.flatten(0, 1)[POSITIONS], plain.flatten(0, 1)[POSITIONS], atol=1e-6, rtol=1e-5)
    for name, gradient in gradients(model, loss_at(ours)).items():
        torch.testing.assert_close(gradient, expected[name], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("architecture", sorted(last_layer._PARTS))
def test_other_positions_are_left_out_inside_and_nowhere_else(architecture: str) -> None:
    model = tiny_model(architecture)
    plain = model(IDS).logits
    with pytest.raises(KeyError), last_layer_only_at(model, POSITIONS):
        inside = model(IDS).logits
        raise KeyError
    assert not torch.allclose(inside[1], plain[1])
    assert torch.equal(model(IDS).logits, plain)


@pytest.mark.parametrize("asked", [lambda model: model, SharedValueModel])
def test_a_checkpointed_model_runs_whole(asked: Callable[[Any], Any]) -> None:
    model = tiny_model("llama").train()
    model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
    with last_layer_only_at(asked(model), POSITIONS):
        ours = model(IDS, use_cache=False).logits
    gradients(model, loss_at(ours))  # runs the layers once more, outside
    assert torch.equal(ours, model(IDS, use_cache=False).logits)

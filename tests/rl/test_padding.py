"""Whatever stands in the padding, NaN too, changes nothing: for every function of rlhf/rl/ that takes a mask.

The functions are found, not listed: a new one is tested from the day it is there, or fails here until ARGUMENTS says
what it is called with.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor

import rlhf.rl

MASK = torch.arange(6) < torch.tensor([6, 1, 3, 4])[:, None]
# Keyword arguments that are numbers, and tensors that are not (batch, response) floats.
ARGUMENTS: dict[str, Any] = {
    "gamma": 0.9,
    "gae_lambda": 0.8,
    "kl_coef": 0.3,
    "clip_range": 0.2,
    "shift_mean": False,
    "cap": 2.0,
    "mean_length": 3.5,
    "estimator": "k3",
    "ranks": torch.tensor([[0, 1, 2, 2, 3, 4]] * 4),
}
PER_RESPONSE = {"token_rewards": ("scores",)}  # tensors of one number a response, which have no padding


def masked_functions() -> Iterator[Callable[..., Any]]:
    for module in pkgutil.iter_modules(rlhf.rl.__path__):
        for _, function in inspect.getmembers(importlib.import_module(f"rlhf.rl.{module.name}"), inspect.isfunction):
            own = function.__module__ == f"rlhf.rl.{module.name}" and not function.__name__.startswith("_")
            if own and "mask" in inspect.signature(function).parameters:
                yield function


def called(function: Callable[..., Any], fill: float) -> tuple[Any, list[Tensor]]:
    """What the function gives with `fill` in the padding, and the tensors it was given, which take gradients."""
    generator = torch.Generator().manual_seed(0)
    given: dict[str, Any] = {}
    leaves = []
    for name, parameter in inspect.signature(function).parameters.items():
        if name == "mask":
            given[name] = MASK
        elif name == "count":
            given[name] = float(MASK.sum())
        elif name in ARGUMENTS:
            given[name] = ARGUMENTS[name]
        elif "Tensor" in str(parameter.annotation) and "Callable" not in str(parameter.annotation):
            values = torch.randn(MASK.shape, generator=generator)
            if name in PER_RESPONSE.get(function.__name__, ()):
                values = values[:, 0]
            else:
                values = values.where(MASK, fill)
            leaves.append(values.requires_grad_())
            given[name] = leaves[-1]
        elif parameter.default is inspect.Parameter.empty:
            pytest.fail(f"{function.__name__} takes {name}; say in ARGUMENTS what it is called with")
    return function(**given), leaves


def tensors(result: Any) -> list[Tensor]:
    return [part for part in (result if isinstance(result, tuple) else (result,)) if isinstance(part, Tensor)]


@pytest.mark.parametrize("function", list(masked_functions()), ids=lambda function: function.__name__)
@pytest.mark.parametrize("fill", [torch.nan, torch.inf, 1e30])
def test_padding_changes_no_value_and_gets_no_gradient(function: Callable[..., Any], fill: float) -> None:
    (plain, leaves), (filled, filled_leaves) = called(function, 0.0), called(function, fill)
    assert tensors(plain)
    for one, other in zip(tensors(plain), tensors(filled), strict=True):
        kept = MASK if one.shape == MASK.shape and one.dtype != torch.bool else torch.ones_like(one, dtype=torch.bool)
        assert torch.equal(one[kept], other[kept])
    if not any(part.requires_grad for part in tensors(plain)):
        return
    for result, given in ((plain, leaves), (filled, filled_leaves)):
        sum(part[MASK].sum() if part.shape == MASK.shape else part.sum() for part in tensors(result)).backward()
        assert any(leaf.grad is not None for leaf in given)
    for one, other in zip(leaves, filled_leaves, strict=True):
        if one.grad is None or one.shape != MASK.shape:
            continue
        assert other.grad is not None
        assert torch.equal(one.grad[MASK], other.grad[MASK])
        assert bool((other.grad[~MASK] == 0).all())


def test_the_functions_are_found() -> None:
    found = {function.__name__ for function in masked_functions()}
    assert {"gae", "masked_sums", "kway_loss", "masked_mean", "policy_loss", "value_loss", "whiten"} <= found

"""Models whose weights DeepSpeed has sharded: made whole for a while, passed through, taken in parts."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.runtime import distributed

# DeepSpeed's engine of each module that it has sharded, which holds the hooks that gather its weights layer by layer.
engines: weakref.WeakKeyDictionary[nn.Module, Any] = weakref.WeakKeyDictionary()
_gathered: weakref.WeakSet[nn.Module] = weakref.WeakSet()


def remember(model: nn.Module, engine: Any) -> None:
    """Tell `gathered` of a model that a Trainer has given to DeepSpeed."""
    engines[model] = engine


def is_sharded(model: Any) -> bool:
    """Whether a rank holds a part of each weight alone (stage 3), so that every pass needs all ranks."""
    return any(hasattr(parameter, "ds_id") for parameter in model.parameters())


def needs_all_ranks(model: Any) -> bool:
    """Whether a pass of this model needs every rank to make one: it is sharded, and not inside of `gathered`."""
    return model not in _gathered and is_sharded(model)


@contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Inside, every weight is whole on every rank, and passes need no other rank; only stage 3 makes a difference.

    Every rank has to enter and leave it. What is written to the weights inside is lost.
    """
    parameters = [p for p in model.parameters() if hasattr(p, "ds_id")]
    if not parameters or model in _gathered:
        yield
        return
    import deepspeed
    from trl.models.utils import add_hooks, remove_hooks

    engine = engines[model]
    with deepspeed.zero.GatheredParameters(parameters):
        remove_hooks(engine)  # they would give each layer's weights back as soon as it has run
        _gathered.add(model)
        try:
            yield
        finally:
            _gathered.remove(model)
            add_hooks(engine)


def begin_pass(model: Any) -> None:
    """Tell stage 3 that a pass begins, where parts of a model are called and not the whole: it follows their order."""
    engine = engines.get(model)
    if engine is None or not needs_all_ranks(model):
        return
    getattr(engine.optimizer, "parameter_offload", engine.optimizer).get_param_coordinator().reset_step()


# Parts of weights


def own_part(parameter: Tensor) -> Tensor:
    """What this rank holds of a weight, a view: all of it, or under stage 3 its part, (numbers rounded up / ranks,)."""
    part: Tensor = getattr(parameter, "ds_tensor", parameter)
    return part.data


def whole_of(part: Tensor, parameter: Any) -> Tensor:
    """The tensor like `parameter` of which each rank gives what `own_part` would; every rank has to ask."""
    if not hasattr(parameter, "ds_id"):
        return part
    parts = [torch.empty_like(part) for _ in range(distributed.world_size())]
    torch.distributed.all_gather(parts, part.contiguous())
    return torch.cat(parts)[: parameter.ds_numel].view(parameter.ds_shape)


@torch.no_grad()
def write_part(part: Tensor, parameter: Any) -> None:
    """Makes `part` what `own_part` is of a weight; every rank has to ask.

    Small weights stay whole beside their parts (PERSISTENT_NUMBERS), and passes read the whole one.
    """
    own_part(parameter).copy_(part)
    if hasattr(parameter, "ds_id") and parameter.data.numel() == parameter.ds_numel:
        parameter.data.copy_(whole_of(own_part(parameter), parameter))


def part_of(whole: Tensor, parameter: Any) -> Tensor:
    """What `own_part` would be of a tensor like `parameter`."""
    if not hasattr(parameter, "ds_id"):
        return whole
    count = parameter.ds_tensor.numel()
    part = whole.new_zeros(count)
    own = whole.flatten()[distributed.rank() * count : (distributed.rank() + 1) * count]
    part[: len(own)] = own
    return part

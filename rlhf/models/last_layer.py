"""The last layer, computed at the positions that are read.

Nothing above the last layer mixes positions, so what it adds at a position that no loss and no score reads is work for
nothing. With few layers, as in the models people try things out on, that is a good part of all work.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.models.batches import round_up
from rlhf.models.lora import unwrap_lora

# Parts of a layer whose output at a position is read at that position alone.
_PARTS = {
    "llama": ("self_attn.q_proj", "self_attn.o_proj", "mlp"),
    "qwen2": ("self_attn.q_proj", "self_attn.o_proj", "mlp"),
    "gpt_neox": ("attention.dense", "mlp"),
}
_MULTIPLE = 64  # of positions: oneDNN builds a kernel for each new shape


@contextmanager
def last_layer_only_at(model: Any, positions: Tensor) -> Iterator[None]:
    """Inside, the last layer's MLP and attention output are computed at `positions`; elsewhere they add 0.

    positions: (n,) int64, distinct, in the flattened (batch, seq). What the model gives elsewhere means nothing.
    Architectures whose layers are not known here run whole, and so does gradient checkpointing, which would run the
    layer again when the positions are forgotten.
    """
    plain = unwrap_lora(model)
    parts = _PARTS.get(plain.config.model_type, ())
    if not parts or getattr(plain.base_model, "is_gradient_checkpointing", False):
        yield
        return
    count = len(positions)
    padded = torch.cat([positions, positions.new_zeros(round_up(count, _MULTIPLE) - count)])
    layer: nn.Module = plain.base_model.layers[-1]
    handles = [handle for part in parts for handle in _only_at(layer.get_submodule(part), positions, padded)]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def _only_at(module: nn.Module, positions: Tensor, padded: Tensor) -> tuple[Any, Any]:
    shape = torch.Size()

    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        nonlocal shape
        shape = inputs[0].shape
        return (inputs[0].flatten(0, 1)[padded][None],)

    def put_back(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        # Without the fill: it repeats a position, whose gradient would then be counted as often.
        everywhere = output.new_zeros(shape[0] * shape[1], output.shape[-1])
        return everywhere.index_copy(0, positions, output[0, : len(positions)]).view(*shape[:2], -1)

    return module.register_forward_pre_hook(select), module.register_forward_hook(put_back)

"""Flat forward passes: all tokens share the linear layers, and only rows of like length share an attention product.

Padding then costs no more than rounding a row's length up. It is for CPUs, where time follows the number of tokens;
GPUs have kernels for ragged batches, and many small products would starve them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface

from rlhf.models import round_up, unwrap_lora

# Their attention is softmax(scaling * q k + causal mask) v behind Transformers' interface, positions come from
# position_ids, and nothing else looks along the sequence.
ARCHITECTURES = frozenset({"llama", "qwen2", "gpt_neox"})
# Widths, rows of a block (with the next shorter ones) and tokens (with zeros) are rounded up to these: oneDNN builds a
# kernel for each new shape. Finer ones were no faster, coarser ones compute more padding.
WIDTH_MULTIPLE = 4
BLOCK_ROWS = 2
TOKEN_MULTIPLE = 64
_NAME = "rlhf_flat"


@dataclass(frozen=True)
class Block:
    """Rows that stand one behind the other, each padded to `width`."""

    rows: int
    width: int

    @property
    def tokens(self) -> int:
        return self.rows * self.width


@dataclass(frozen=True)
class FlatRows:
    """Rows of tokens as one row, and where they are in it."""

    input_ids: Tensor  # (1, tokens) int64, zeros behind each row up to its block's width
    position_ids: Tensor  # (1, tokens) int64, from 0 in each row
    blocks: tuple[Block, ...]
    starts: Tensor  # (rows,) int64, where each row begins, in the order they were given in


def can_run_flat(model: Any) -> bool:
    """Whether this model gives the same outputs for flat rows: an architecture we know, on a CPU, in plain attention.

    Attention that was asked for by another name is left alone, as is gradient checkpointing, which would run attention
    again when the blocks are forgotten.
    """
    plain = unwrap_lora(model)
    config = plain.config
    return (
        plain.device.type == "cpu"
        and config.model_type in ARCHITECTURES
        and config._attn_implementation == "eager"
        and set(getattr(config, "layer_types", None) or ["full_attention"]) == {"full_attention"}
        and not getattr(plain, "is_gradient_checkpointing", False)
    )


def flat_groups(lengths: Sequence[int], token_budget: int) -> list[list[int]]:
    """Indices, longest first, cut so that `flatten` makes at most `token_budget` tokens of each group.

    A group has at least BLOCK_ROWS rows, even where those are over the budget.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    groups: list[list[int]] = []
    tokens = 0
    for start in range(0, len(order), BLOCK_ROWS):
        part = order[start : start + BLOCK_ROWS]
        more = len(part) * round_up(lengths[part[0]], WIDTH_MULTIPLE)
        if not groups or round_up(tokens + more, TOKEN_MULTIPLE) > token_budget:
            groups.append([])
            tokens = 0
        groups[-1] += part
        tokens += more
    return groups


def flatten(rows: Sequence[Sequence[int]], *, device: Any = "cpu") -> FlatRows:
    """The rows, sorted by length, one behind the other; none may be empty."""
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    ids: list[int] = []
    positions: list[int] = []
    starts = [0] * len(rows)
    blocks = []
    done = 0
    while done < len(order):
        width = round_up(len(rows[order[done]]), WIDTH_MULTIPLE)
        alike = sum(len(rows[i]) > width - WIDTH_MULTIPLE for i in order[done:])
        block = order[done : done + round_up(alike, BLOCK_ROWS)]
        done += len(block)
        blocks.append(Block(len(block), width))
        for i in block:
            starts[i] = len(ids)
            ids += [*rows[i], *[0] * (width - len(rows[i]))]
            positions += range(width)
    fill = -len(ids) % TOKEN_MULTIPLE
    if fill:
        blocks.append(Block(1, fill))
        ids += [0] * fill
        positions += range(fill)
    return FlatRows(
        torch.tensor(ids, device=device)[None],
        torch.tensor(positions, device=device)[None],
        tuple(blocks),
        torch.tensor(starts, device=device),
    )


@contextmanager
def flat_attention(model: Any, blocks: Sequence[Block]) -> Iterator[dict[str, Any]]:
    """Inside, the model's attention stays within each row of the blocks; gives keyword arguments for its forward."""
    config = unwrap_lora(model).config
    before = config._attn_implementation
    config._attn_implementation = _NAME  # Transformers makes no mask for a name that it does not know
    try:
        yield {"flat_blocks": blocks}
    finally:
        config._attn_implementation = before


def _attend(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float,
    flat_blocks: Sequence[Block],
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row within itself.

    query: (1, heads, tokens, depth); key, value: the same with as many heads or a divisor of them.
    Returns (1, tokens, heads, depth).
    """
    heads, depth = query.shape[1], query.shape[3]
    if key.shape[1] != heads:
        key, value = (t.repeat_interleave(heads // t.shape[1], dim=1) for t in (key, value))
    sizes = [block.tokens for block in flat_blocks]
    widest = max(block.width for block in flat_blocks)
    causal = torch.full((widest, widest), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    parts = []
    for block, *split in zip(flat_blocks, *(t[0].split(sizes, dim=1) for t in (query, key, value)), strict=True):
        q, k, v = (t.reshape(heads * block.rows, block.width, depth) for t in split)
        scores = torch.baddbmm(causal[: block.width, : block.width], q, k.transpose(1, 2), alpha=scaling)
        mixed = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(query.dtype), v)
        parts.append(mixed.view(heads, block.tokens, depth).transpose(0, 1))
    return torch.cat(parts)[None], None


AttentionInterface.register(_NAME, _attend)

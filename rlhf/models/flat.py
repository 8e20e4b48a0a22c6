"""Flat forward passes: all tokens share the linear layers, and attention stays within each row.

On a CPU rows of like length share an attention product, and padding costs no more than rounding a row's length up. On
a GPU many small products would starve it; there PyTorch's flash attention takes rows of any lengths, side by side.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, AttentionMaskInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import sdpa_mask

from rlhf.models.batches import round_up
from rlhf.models.lora import unwrap_lora
from rlhf.models.varlen import attend_rows

# Their attention is softmax(scaling * q k + causal mask) v behind Transformers' interface, positions come from
# position_ids, and nothing else looks along the sequence.
ARCHITECTURES = frozenset({"llama", "qwen2", "gpt_neox"})
# Widths, rows of a block (with the next shorter ones) and tokens (with zeros) are rounded up to these: oneDNN builds a
# kernel for each new shape. Finer ones were no faster, coarser ones compute more padding.
WIDTH_MULTIPLE = 4
BLOCK_ROWS = 2
TOKEN_MULTIPLE = 64
# The attention that a user asks for to have flat passes on a GPU. Where a pass is not flat, it is PyTorch's fused one.
VARLEN = "varlen"
_VARLEN_DTYPES = (torch.bfloat16, torch.float16)  # what the kernel takes
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

    @cached_property
    def boundaries(self) -> Tensor:
        """Where each row begins, in the order they stand in, and where the last one ends, (rows + 1,) int32."""
        widths = torch.tensor([0, *(block.width for block in self.blocks for _ in range(block.rows))])
        return widths.cumsum(0, dtype=torch.int32).to(self.input_ids.device)


def can_run_flat(model: Any) -> bool:
    """Whether this model gives the same outputs for flat rows: an architecture we know, and an attention we can stand
    in for, which is plain matrix products on a CPU and `varlen` on a GPU.

    Attention that was asked for by another name is left alone, as is gradient checkpointing, which would run attention
    again when the rows are forgotten.
    """
    plain = unwrap_lora(model)
    config = plain.config
    if plain.device.type == "cpu":
        replaceable = config._attn_implementation == "eager"
    else:
        replaceable = config._attn_implementation == VARLEN and plain.dtype in _VARLEN_DTYPES
    return (
        replaceable
        and config.model_type in ARCHITECTURES
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
    """The rows, sorted by length, one behind the other; none may be empty. On a GPU without padding between them."""
    width_multiple, block_rows = (WIDTH_MULTIPLE, BLOCK_ROWS) if torch.device(device).type == "cpu" else (1, 1)
    order = sorted(range(len(rows)), key=lambda i: (-len(rows[i]), i))
    ids: list[int] = []
    positions: list[int] = []
    starts = [0] * len(rows)
    blocks = []
    done = 0
    while done < len(order):
        width = round_up(len(rows[order[done]]), width_multiple)
        alike = sum(len(rows[i]) > width - width_multiple for i in order[done:])
        block = order[done : done + round_up(alike, block_rows)]
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
def flat_attention(model: Any, flat: FlatRows) -> Iterator[dict[str, Any]]:
    """Inside, the model's attention stays within each of the rows; gives keyword arguments for its forward."""
    config = unwrap_lora(model).config
    before = config._attn_implementation
    config._attn_implementation = _NAME  # Transformers makes no mask for a name that it does not know
    try:
        yield {"flat_rows": flat}
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
    flat_rows: FlatRows,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Causal attention of each row within itself.

    query: (1, heads, tokens, depth); key, value: the same with as many heads or a divisor of them.
    Returns (1, tokens, heads, depth).
    """
    attend = _in_blocks if query.device.type == "cpu" else _in_one_kernel
    return attend(query[0], key[0], value[0], scaling, flat_rows)[None], None


def _in_blocks(query: Tensor, key: Tensor, value: Tensor, scaling: float, flat: FlatRows) -> Tensor:
    """A matrix product a block; (heads, tokens, depth) each -> (tokens, heads, depth)."""
    heads, depth = query.shape[0], query.shape[2]
    if key.shape[0] != heads:
        key, value = (t.repeat_interleave(heads // t.shape[0], dim=0) for t in (key, value))
    sizes = [block.tokens for block in flat.blocks]
    widest = max(block.width for block in flat.blocks)
    causal = torch.full((widest, widest), -torch.inf, dtype=query.dtype, device=query.device).triu(1)
    parts = []
    for block, *split in zip(flat.blocks, *(t.split(sizes, dim=1) for t in (query, key, value)), strict=True):
        q, k, v = (t.reshape(heads * block.rows, block.width, depth) for t in split)
        scores = torch.baddbmm(causal[: block.width, : block.width], q, k.transpose(1, 2), alpha=scaling)
        mixed = torch.bmm(scores.softmax(-1, dtype=torch.float32).to(query.dtype), v)
        parts.append(mixed.view(heads, block.tokens, depth).transpose(0, 1))
    return torch.cat(parts)


def _in_one_kernel(query: Tensor, key: Tensor, value: Tensor, scaling: float, flat: FlatRows) -> Tensor:
    """All rows at once, whatever their lengths; (heads, tokens, depth) each -> (tokens, heads, depth)."""
    longest = max(block.width for block in flat.blocks)
    q, k, v = (t.transpose(0, 1).contiguous() for t in (query, key, value))
    return attend_rows(q, k, v, flat.boundaries, longest, scaling)


AttentionInterface.register(_NAME, _attend)
AttentionInterface.register(VARLEN, sdpa_attention_forward)
AttentionMaskInterface.register(VARLEN, sdpa_mask)

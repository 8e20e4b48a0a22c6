"""Rows of like length side by side, so that little padding is computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor


# Rows and columns of a batch are rounded up to these, so it has a multiple of 64 tokens: oneDNN builds a kernel for
# each new shape, and without rounding nearly every shape is new.
ROW_MULTIPLE = 8
WIDTH_MULTIPLE = 8
# Padding worth adding to save a forward pass: this many tokens, or this share of the batch.
PADDING_TOKENS = 64
PADDING_SHARE = 0.05


def pad_right(ids: Sequence[Sequence[int]], pad_token_id: int, multiple_of: int = 8) -> tuple[Tensor, Tensor]:
    """(batch, seq) int64 ids padded on the right to a multiple, and (batch,) int64 lengths."""
    import torch

    lengths = torch.tensor([len(row) for row in ids])
    width = round_up(int(lengths.max()), multiple_of)
    padded = torch.full((len(ids), width), pad_token_id, dtype=torch.long)
    for row, sequence in enumerate(ids):
        padded[row, : len(sequence)] = torch.tensor(sequence, dtype=torch.long)
    return padded, lengths


def round_up(n: int, multiple: int) -> int:
    """The least multiple that is not below n."""
    return -(-n // multiple) * multiple


def length_buckets(lengths: Sequence[int], token_budget: int, *, least_rows: int = 1) -> list[list[int]]:
    """Indices grouped by length, longest first: a group ends where the budget is spent or padding would grow too much.

    The budget is in tokens, padding included; a group has at least `least_rows` rows even where those are over it.
    """
    order = sorted(range(len(lengths)), key=lambda i: (-lengths[i], i))
    buckets: list[list[int]] = []
    width = 0
    start = 0
    while start < len(order):
        block_width = round_up(max(lengths[order[start]], 1), WIDTH_MULTIPLE)
        rows = max(min(ROW_MULTIPLE, token_budget // block_width), least_rows)
        block = order[start : start + rows]
        start += rows
        if buckets:
            padding = rows * (width - block_width)
            cheap = padding <= max(PADDING_TOKENS, PADDING_SHARE * width * len(buckets[-1]))
            if cheap and width * (len(buckets[-1]) + rows) <= token_budget:
                buckets[-1] += block
                continue
        width = block_width
        buckets.append(block)
    return buckets

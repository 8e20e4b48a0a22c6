"""Zero mean and unit variance over the tokens that count."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

Reduce = Callable[[Tensor], Tensor]
"""Sums a tensor over all ranks; the identity on one process."""


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True, reduce: Reduce | None = None) -> Tensor:
    """(x - mean) / std over the entries where mask is True; with shift_mean=False the mean is put back.

    x: any shape, float32.  mask: the same shape, bool.  reduce: sums over ranks, so that mean and variance are those of
    the entries of all ranks together.
    The variance divides by the number of entries, not by one less, and has 1e-8 added. Returns 0 where mask is False.
    """
    reduce = reduce or (lambda total: total)
    x = x.where(mask, 0.0)
    count, total = reduce(torch.stack([mask.sum().to(x.dtype), x.sum()]))
    mean = total / count
    centred = (x - mean).where(mask, 0.0)
    variance = reduce(centred.square().sum()) / count
    whitened = centred * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else (whitened + mean).where(mask, 0.0)

"""Zero mean and unit variance over the tokens that count."""

from __future__ import annotations

import torch
from torch import Tensor


def whiten(x: Tensor, mask: Tensor, *, shift_mean: bool = True) -> Tensor:
    """(x - mean) / std over the entries where mask is True; with shift_mean=False the mean is put back.

    x: any shape, float32, the whole batch of all ranks.  mask: the same shape, bool.
    The variance divides by the number of entries, not by one less, and has 1e-8 added. Returns 0 where mask is False.
    """
    x = x.where(mask, 0.0)
    count = mask.sum().to(x.dtype)
    mean = x.sum() / count
    centred = (x - mean).where(mask, 0.0)
    variance = centred.square().sum() / count
    whitened = centred * torch.rsqrt(variance + 1e-8)
    return whitened if shift_mean else (whitened + mean).where(mask, 0.0)

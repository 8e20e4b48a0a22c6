"""PyTorch's flash attention for rows of any lengths, which has other parameters in each of its versions."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from rlhf.errors import UserError


@functools.cache
def kernel() -> Callable[..., Any] | None:
    """torch.nn.attention.varlen.varlen_attn; None in a PyTorch that has none (before 2.10)."""
    try:
        from torch.nn.attention.varlen import varlen_attn
    except ImportError:
        return None
    return varlen_attn


def require_kernel() -> None:
    """Raises UserError in a PyTorch without it."""
    if kernel() is None:
        raise UserError(
            f"model.attn_implementation=varlen needs PyTorch 2.10 or newer, and this is {torch.__version__}; use sdpa."
        )


def attend_rows(query: Tensor, key: Tensor, value: Tensor, boundaries: Tensor, longest: int, scaling: float) -> Tensor:
    """Causal attention of each row within itself, (tokens, heads, depth).

    query: (tokens, heads, depth); key, value: the same with as many heads or a divisor of them.
    boundaries: (rows + 1,) int32, where each row begins and the last one ends. longest: tokens of the longest row.
    """
    attend = kernel()
    assert attend is not None, "require_kernel was asked when the model was loaded"
    takes = inspect.signature(attend).parameters
    given: dict[str, Any] = {"window_size": (-1, 0)} if "window_size" in takes else {"is_causal": True}
    if "scale" in takes:
        given["scale"] = scaling
    else:  # it scales by 1 / sqrt(depth) itself
        query = query * (scaling * query.shape[2] ** 0.5)
    groups = query.shape[1] // key.shape[1]
    if groups > 1 and "enable_gqa" in takes:
        given["enable_gqa"] = True
    elif groups > 1:
        key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    mixed = attend(query, key, value, boundaries, boundaries, longest, longest, **given)
    assert isinstance(mixed, Tensor)  # a tuple where more is asked for
    return mixed

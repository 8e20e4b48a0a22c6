"""Hypothesis strategies: ragged rows of floats, and the padded tensors that hold them with NaN in the padding."""

from __future__ import annotations

import torch
from hypothesis import strategies as st

Row = list[float]


def ragged(width: int, low: float = -3.0, high: float = 3.0) -> st.SearchStrategy[list[list[Row]]]:
    """`width` lists of rows, alike in shape: 1 to 4 rows of 1 to 6 floats each."""
    number = st.floats(low, high, width=32, allow_subnormal=False)  # float32 cannot clip what it cannot halve
    lengths = st.lists(st.integers(1, 6), min_size=1, max_size=4)
    return lengths.flatmap(
        lambda ns: st.tuples(
            *(st.tuples(*(st.lists(number, min_size=n, max_size=n) for n in ns)) for _ in range(width))
        ).map(lambda fields: [list(rows) for rows in fields])
    )


def padded(rows: list[Row], fill: float = torch.nan) -> tuple[torch.Tensor, torch.Tensor]:
    """Rows as (batch, response) float32 with `fill` behind each, and the mask that is True on the rows' own numbers."""
    width = max(len(row) for row in rows) + 1  # one column that is padding in every row
    values = torch.tensor([row + [fill] * (width - len(row)) for row in rows])
    mask = torch.tensor([[True] * len(row) + [False] * (width - len(row)) for row in rows])
    return values, mask


def unpadded(values: torch.Tensor, mask: torch.Tensor) -> list[Row]:
    assert bool((values[~mask] == 0).all()), "padding is 0, not what was there"
    return [value[keep].tolist() for value, keep in zip(values, mask, strict=True)]

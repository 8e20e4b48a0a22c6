from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf.rl.whitening import whiten
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged, unpadded


@given(fields=ragged(1), shift_mean=st.booleans())
def test_whitening_matches_the_reference_and_ignores_padding(fields: list[list[Row]], shift_mean: bool) -> None:
    (rows,) = fields
    flat = torch.tensor([x for row in rows for x in row])
    assume(flat.numel() == 1 or flat.var() > 1e-3)
    values, mask = padded(rows)
    ours = unpadded(whiten(values, mask, shift_mean=shift_mean), mask)
    for row, expected in zip(ours, reference.whitened(rows, shift_mean), strict=True):
        assert row == pytest.approx(expected, abs=1e-3, rel=1e-3)


def test_without_mean_shift_the_mean_stays_and_the_spread_is_one() -> None:
    x = torch.tensor([[1.0, 2.0, 6.0]])
    kept = whiten(x, torch.ones(1, 3, dtype=torch.bool), shift_mean=False)
    assert kept.mean().item() == pytest.approx(3.0)
    assert kept.std(correction=0).item() == pytest.approx(1.0)

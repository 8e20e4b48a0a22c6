from __future__ import annotations

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf.rl.whitening import whiten
from tests.reference import ppo as reference
from tests.rl.rows import Row, padded, ragged, unpadded


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


def test_statistics_are_those_of_all_ranks_together() -> None:
    """Two ranks of unequal token counts, each given the other's sums, whiten as one process does."""
    x = torch.randn(4, 5, generator=torch.Generator().manual_seed(0))
    mask = torch.arange(5) < torch.tensor([5, 1, 2, 3])[:, None]
    whole = whiten(x, mask)

    parts = [(x[:1], mask[:1]), (x[1:], mask[1:])]
    sent: list[list[torch.Tensor]] = [[], []]

    def exchange(own: int) -> torch.Tensor:
        # The k-th all-reduce of one rank meets the k-th of the other, which a first pass has recorded.
        calls = iter(range(len(sent[1 - own])))

        def reduce(total: torch.Tensor) -> torch.Tensor:
            return total + sent[1 - own][next(calls)]

        return whiten(*parts[own], reduce=reduce)

    count_and_sum = [torch.stack([m.sum().float(), v.where(m, 0.0).sum()]) for v, m in parts]
    count, total = sum(count_and_sum)
    for rank, (v, m) in enumerate(parts):
        sent[rank] = [count_and_sum[rank], (v - total / count).where(m, 0.0).square().sum()]
    together = torch.cat([exchange(0), exchange(1)])
    assert torch.allclose(together, whole, atol=1e-6)
    assert not torch.allclose(torch.cat([whiten(*part) for part in parts]), whole, atol=1e-2)

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.importance import truncated_ratio
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged, unpadded


@given(fields=ragged(2, -4.0, 0.0), cap=st.sampled_from([1.0, 2.0, 5.0]))
def test_truncated_ratio_matches_the_reference_and_ignores_padding(fields: list[list[Row]], cap: float) -> None:
    (policy, mask), (sampler, _) = padded(fields[0]), padded(fields[1])
    ours = unpadded(truncated_ratio(policy, sampler, mask, cap=cap), mask)
    for row, *logprobs in zip(ours, *fields, strict=True):
        expected = [reference.truncated_ratio(p, s, cap) for p, s in zip(*logprobs, strict=True)]
        assert row == pytest.approx(expected, rel=1e-4)


def test_weighted_samples_of_the_sampler_have_the_policy_s_mean() -> None:
    policy, sampler = torch.tensor([[0.5, 0.3, 0.2]]), torch.tensor([[0.4, 0.4, 0.2]])
    worth = torch.tensor([[1.0, -2.0, 5.0]])
    weights = truncated_ratio(policy.log(), sampler.log(), torch.ones(1, 3, dtype=torch.bool), cap=2.0)
    assert (sampler * weights * worth).sum().item() == pytest.approx((policy * worth).sum().item(), rel=1e-5)

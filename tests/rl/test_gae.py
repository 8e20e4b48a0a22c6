from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.gae import gae
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged, unpadded

fractions = st.sampled_from([0.0, 0.5, 0.95, 1.0])


@given(fields=ragged(2), gamma=fractions, gae_lambda=fractions)
def test_gae_matches_the_double_sum_and_ignores_padding(
    fields: list[list[Row]], gamma: float, gae_lambda: float
) -> None:
    (rewards, mask), (values, _) = padded(fields[0]), padded(fields[1])
    ours = unpadded(gae(rewards, values, mask, gamma=gamma, gae_lambda=gae_lambda), mask)
    for row, row_rewards, row_values in zip(ours, *fields, strict=True):
        assert row == pytest.approx(reference.advantages(row_rewards, row_values, gamma, gae_lambda), abs=1e-4)


def test_gamma_and_lambda_one_give_return_to_go_less_value() -> None:
    rewards, values = torch.tensor([[1.0, 2.0, 3.0]]), torch.tensor([[0.5, -1.0, 4.0]])
    advantages = gae(rewards, values, torch.ones(1, 3, dtype=torch.bool), gamma=1.0, gae_lambda=1.0)
    assert advantages.tolist() == [[6 - 0.5, 5 + 1.0, 3 - 4.0]]


def test_lambda_zero_is_the_one_step_error() -> None:
    rewards, values = torch.tensor([[1.0, 2.0]]), torch.tensor([[0.5, -1.0]])
    advantages = gae(rewards, values, torch.ones(1, 2, dtype=torch.bool), gamma=0.9, gae_lambda=0.0)
    assert advantages.tolist()[0] == pytest.approx([1 + 0.9 * -1 - 0.5, 2 - -1])


def test_left_padding_gives_the_same_advantages() -> None:
    rewards, values = torch.tensor([[torch.nan, 1.0, 2.0]]), torch.tensor([[torch.nan, 0.5, -1.0]])
    mask = torch.tensor([[False, True, True]])
    right = gae(rewards[:, 1:], values[:, 1:], mask[:, 1:], gamma=0.9, gae_lambda=0.8)
    left = gae(rewards, values, mask, gamma=0.9, gae_lambda=0.8)
    assert left[:, 0] == 0
    assert torch.equal(left[:, 1:], right)


def test_different_shapes_are_refused() -> None:
    with pytest.raises(ValueError, match="shapes differ"):
        gae(torch.zeros(1, 2), torch.zeros(1, 3), torch.ones(1, 2, dtype=torch.bool), gamma=1.0, gae_lambda=1.0)

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.baselines import group_normalised, leave_one_out
from tests.reference import ppo as reference

rewards = st.integers(2, 5).flatmap(
    lambda k: st.lists(st.lists(st.floats(-5, 5, width=32), min_size=k, max_size=k), min_size=1, max_size=4)
)


@given(groups=rewards)
def test_each_group_matches_the_reference_whatever_the_others_are(groups: list[list[float]]) -> None:
    flat, samples = torch.tensor([r for group in groups for r in group]), len(groups[0])
    ours = leave_one_out(flat, samples).view(-1, samples).tolist()
    for row, group in zip(ours, groups, strict=True):
        assert row == pytest.approx(reference.leave_one_out(group), abs=1e-4)
    ours = group_normalised(flat, samples).view(-1, samples).tolist()
    for row, group in zip(ours, groups, strict=True):
        assert row == pytest.approx(reference.group_normalised(group), abs=2e-2, rel=2e-3)


def test_baseline_of_a_response_does_not_hold_its_own_reward() -> None:
    first, second = (leave_one_out(torch.tensor([r, 1.0, 3.0]), 3) for r in (0.0, 10.0))
    assert second[0] - first[0] == 10
    assert leave_one_out(torch.tensor([5.0, 1.0, 3.0]), 3).sum() == 0


@pytest.mark.parametrize("advantage", [leave_one_out, group_normalised])
def test_equal_rewards_are_no_advantage(advantage: Callable[[torch.Tensor, int], torch.Tensor]) -> None:
    assert advantage(torch.tensor([0.3, 0.3, 7.0, 7.0]), 2).tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize("advantage", [leave_one_out, group_normalised])
@pytest.mark.parametrize("samples", [1, 3])
def test_what_is_no_group_is_refused(advantage: Callable[[torch.Tensor, int], torch.Tensor], samples: int) -> None:
    with pytest.raises(ValueError, match=f"4 rewards do not split into groups of {samples}"):
        advantage(torch.zeros(4), samples)

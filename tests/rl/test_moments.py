from __future__ import annotations

import json

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.moments import RunningMoments
from tests.reference import ppo as reference

batches = st.lists(st.lists(st.floats(-5, 5, width=32), min_size=1, max_size=6), min_size=1, max_size=5)


def after(rows: list[list[float]]) -> RunningMoments:
    moments = RunningMoments()
    for row in rows:
        moments.update(torch.tensor(row))
    return moments


@given(rows=batches)
def test_std_is_that_of_all_numbers_so_far(rows: list[list[float]]) -> None:
    expected = reference.running_std(rows)
    if expected > 1e-6:
        assert after(rows).std == pytest.approx(expected, rel=1e-6)


@given(rows=batches)
def test_state_through_json_goes_on_with_the_same_bits(rows: list[list[float]]) -> None:
    resumed = RunningMoments()
    resumed.load_state_dict(json.loads(json.dumps(after(rows).state_dict())))
    resumed.update(torch.tensor([0.1, 0.7]))
    assert resumed == after([*rows, [0.1, 0.7]])


def test_what_does_not_vary_is_divided_by_one() -> None:
    assert RunningMoments().std == 1
    assert after([[3.0, 3.0], [3.0]]).std == 1

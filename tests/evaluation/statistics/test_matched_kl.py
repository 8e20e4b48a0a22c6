from __future__ import annotations

import numpy as np
import pytest

from rlhf.evaluation.statistics.matched_kl import interpolation, targets


def test_between_neighbours_the_curve_is_straight_in_the_root_of_kl() -> None:
    kl = [9.0, 1.0, 4.0, 0.0]
    weights = interpolation(kl, 2.25)
    assert weights is not None
    np.testing.assert_allclose(weights, [0, 0.5, 0.5, 0])
    assert weights @ np.sqrt(kl) == pytest.approx(1.5)


def test_at_a_measured_point_it_is_that_point() -> None:
    weights = interpolation([1.0, 4.0, 4.0], 4.0)
    np.testing.assert_allclose(weights, [0, 0.5, 0.5])  # two of the same KL share it
    np.testing.assert_allclose(interpolation([0.0, 4.0], 0.0), [1, 0])


def test_outside_of_what_was_measured_there_is_nothing() -> None:
    assert interpolation([1.0, 4.0], 4.1) is None
    assert interpolation([1.0, 4.0], 0.9) is None
    assert interpolation([], 1.0) is None


def test_targets_lie_where_two_curves_overlap() -> None:
    found = targets([[0.0, 3.2], [0.5, 1.0, 10.0], [2.0]])
    assert found
    assert all(0.5 < target <= 3.2 for target in found)
    assert found[-1] == pytest.approx(3.2, abs=0.1)
    assert targets([[0.0, 3.0]]) == []
    assert targets([[0.0, 1.0], [2.0, 3.0]]) == []

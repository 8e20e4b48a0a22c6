from __future__ import annotations

import math
import statistics

import numpy as np
import pytest

from rlhf.evaluation.statistics.seeds import over_seeds


def test_the_interval_is_students() -> None:
    values = [0.61, 0.66, 0.63]
    found = over_seeds(values)
    half_width = 4.302653 * statistics.stdev(values) / math.sqrt(3)  # t of two degrees of freedom, from a table
    assert found.mean == pytest.approx(statistics.mean(values))
    assert found.ci == pytest.approx([found.mean - half_width, found.mean + half_width])
    assert (found.deviation, found.n) == (pytest.approx(statistics.stdev(values)), 3)


def test_one_seed_gives_no_interval_and_none_is_refused() -> None:
    found = over_seeds([0.7])
    assert (found.mean, found.ci, found.deviation, found.n) == (0.7, None, None, 1)
    with pytest.raises(ValueError, match="no seeds"):
        over_seeds([])


def test_three_seeds_cover_the_truth_95_times_in_100() -> None:
    generator = np.random.default_rng(0)
    runs = [over_seeds(generator.normal(2, 1, size=3).tolist()) for _ in range(800)]
    assert 0.93 <= np.mean([run.low <= 2 <= run.high for run in runs if run.low and run.high]) <= 0.97

"""How the cost of an iteration grows: seconds against one size at a time, and the exponent of the best power law."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace

from tests.benchmarks.versus_trl.workload import Job

# Each axis goes through the workload's own point; the lengths are all-long, so that a response is as long as it may be.
AXES: dict[str, Sequence[int]] = {"batch": (16, 32, 64, 128), "new_tokens": (12, 24, 48, 96), "hidden": (128, 256, 512)}
QUICK_AXES: dict[str, Sequence[int]] = {"batch": (8, 16), "new_tokens": (4, 8), "hidden": (32, 64)}


def jobs(base: Job, axes: dict[str, Sequence[int]]) -> dict[str, list[Job]]:
    """The jobs along each axis, `base` with one size changed."""
    changes = {
        "batch": lambda n: replace(base, batch=n),
        "new_tokens": lambda n: replace(base, new_tokens=n),
        "hidden": lambda n: replace(base, hidden=n),
    }
    return {axis: [changes[axis](n) for n in sizes] for axis, sizes in axes.items()}


def exponent(sizes: Sequence[float], seconds: Sequence[float]) -> float:
    """The slope of log seconds over log size, by least squares."""
    x, y = [math.log(size) for size in sizes], [math.log(second) for second in seconds]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    covariance = sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y, strict=True))
    return covariance / sum((a - mean_x) ** 2 for a in x)

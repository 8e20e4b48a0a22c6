"""Scores at equal measured KL: settings are compared where they went equally far, not at equal coefficients."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray


def interpolation(kl: ArrayLike, at: float) -> NDArray[np.float64] | None:
    """Weights of the measured points that give the value at KL `at`; None outside of what was measured.

    kl: (points,) nats, in any order. The curve between two neighbours is a straight line in sqrt(KL), in which scores
    are nearly linear at first (Bai et al. 2022, arXiv:2204.05862). Returns (points,), summing to 1. Points with one KL
    share its weight.
    """
    root = np.sqrt(np.maximum(np.asarray(kl, dtype=np.float64), 0.0))
    target = np.sqrt(at)
    places, inverse, counts = np.unique(root, return_inverse=True, return_counts=True)
    if len(places) == 0 or not places[0] <= target <= places[-1]:
        return None
    weights = np.zeros(len(places))
    right = int(np.searchsorted(places, target))
    if places[right] == target:
        weights[right] = 1.0
    else:
        share = (target - places[right - 1]) / (places[right] - places[right - 1])
        weights[right - 1], weights[right] = 1 - share, share
    return np.asarray((weights / counts)[inverse])


def targets(curves: Sequence[ArrayLike], count: int = 5) -> list[float]:
    """KLs at which two curves or more can be compared, evenly spaced in sqrt(KL); [] with fewer than two curves.

    curves: the measured KLs of each curve. The range is the one in which at least two curves overlap.
    """
    ranges = [(float(np.min(c)), float(np.max(c))) for c in (np.asarray(curve) for curve in curves) if len(c) > 1]
    if len(ranges) < 2:
        return []
    low = sorted(start for start, _ in ranges)[1]  # from here on two curves have begun
    high = sorted((end for _, end in ranges), reverse=True)[1]
    if not 0 <= low < high:
        return []
    roots = np.linspace(np.sqrt(max(low, 0.0)), np.sqrt(high), count + 1)[1:]
    found = []
    for value in roots**2:
        digits = 1 - int(np.floor(np.log10(value))) if value > 0 else 1
        rounded = float(np.floor(value * 10**digits + 1e-9) / 10**digits)  # downwards: still inside
        if rounded > low:
            found.append(rounded)
    return sorted(set(found))

"""Whether a judge favours the answer that it is shown first."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from rlhf.evaluation.statistics.win_rates import CONFIDENCE


@dataclass(frozen=True)
class PositionBias:
    """How often the answer shown first won, ties left out."""

    share: float  # 0.5: no bias
    low: float
    high: float
    p_value: float  # of a share as far from 0.5 as this where there is no bias
    n: int  # decided verdicts


def position_bias(first_won: ArrayLike) -> PositionBias | None:
    """From (verdicts,) values: 1 where the answer shown first won, 0 where the other, 0.5 a tie, NaN no verdict.

    A bias only where the better answer is first as often as not: orders drawn at random, or both orders of each pair.
    The interval is Clopper and Pearson's (1934), exact for independent verdicts; with both orders of each pair it is
    too wide, the more so the more often one model wins in both. None where no verdict is decided.
    """
    from scipy.stats import binomtest

    array = np.asarray(first_won, dtype=np.float64)
    wins, losses = int((array > 0.5).sum()), int((array < 0.5).sum())
    if not wins + losses:
        return None
    test = binomtest(wins, wins + losses)
    bounds = test.proportion_ci(CONFIDENCE, method="exact")
    return PositionBias(wins / (wins + losses), bounds.low, bounds.high, test.pvalue, wins + losses)


def consistency(forth: ArrayLike, back: ArrayLike) -> tuple[float, int] | None:
    """Share of pairs that were shown in both orders and decided in both, whose winner is the same model; and their n.

    forth, back: (pairs,) 1 where the answer shown first won, of a pair in one order and in the other.
    """
    one, other = np.asarray(forth, dtype=np.float64) - 0.5, np.asarray(back, dtype=np.float64) - 0.5
    decided = np.abs(one * other) > 0  # False for NaN
    return (float((one * other < 0)[decided].mean()), int(decided.sum())) if decided.any() else None

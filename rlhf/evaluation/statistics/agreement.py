"""How far judges agree on who won: Cohen's kappa between two, Krippendorff's alpha over several.

A verdict is 1 for a win, 0 for a loss, 0.5 for a tie and NaN for none; a judge that weighs (0.8, say) is taken at the
side it leans to. Intervals are bootstrapped over prompts: all comparisons of a prompt are drawn together.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.win_rates import Bootstrap, Estimate, interval

_OUTCOMES = np.array([0.0, 0.5, 1.0])


@dataclass(frozen=True)
class PairAgreement:
    """Two judges on the comparisons that both gave a verdict on. `n` of each estimate counts comparisons."""

    agreement: Estimate  # share with the same outcome of the three
    decided_agreement: Estimate | None  # the same among those that neither ties; None: there is none
    kappa: Estimate | None  # 1: always alike, 0: as by chance; None: both always say one and the same


def pair_agreement(
    ours: ArrayLike, theirs: ArrayLike, *, prompts: ArrayLike, bootstrap: Bootstrap
) -> PairAgreement | None:
    """Agreement of two judges; None where they share no comparison.

    ours, theirs: (comparisons,) verdicts.
    prompts:      (comparisons,) int, each comparison's prompt, from 0 to bootstrap.prompts - 1.
    Kappa is Cohen's (1960), unweighted: (p_o - p_e) / (1 - p_e) over the outcomes loss, tie and win.
    """
    first, second, prompt = _outcomes(ours), _outcomes(theirs), np.asarray(prompts)
    both = (first >= 0) & (second >= 0)
    if not both.any():
        return None
    tables = np.zeros((bootstrap.prompts, 3, 3))  # of each prompt: how often the two gave these outcomes
    np.add.at(tables, (prompt[both], first[both], second[both]), 1)
    table = tables.sum(axis=0)
    drawn = bootstrap.sums(tables.reshape(-1, 9)).reshape(-1, 3, 3)

    def estimate(of: NDArray[np.float64], draws: NDArray[np.float64], n: float) -> Estimate | None:
        return None if np.isnan(of) else interval(float(of), draws, round(n))

    agreement = estimate(_observed(table), _observed(drawn), table.sum())
    assert agreement is not None, "there is a shared comparison"
    decided, drawn_decided = table[::2, ::2], drawn[:, ::2, ::2]
    return PairAgreement(
        agreement=agreement,
        decided_agreement=estimate(_observed(decided), _observed(drawn_decided), decided.sum()),
        kappa=estimate(_kappa(table), _kappa(drawn), table.sum()),
    )


def krippendorff_alpha(verdicts: ArrayLike, *, prompts: ArrayLike, bootstrap: Bootstrap) -> Estimate | None:
    """Krippendorff's alpha (2004, ch. 11), ordinal, over (judges, comparisons) verdicts, NaN where a judge gave none.

    1: always alike, 0: as by chance. `n` counts the comparisons with two verdicts or more, on which it rests. None
    where there is no such comparison, or all of them have one and the same outcome.
    prompts: as for pair_agreement.
    """
    outcomes, prompt = np.stack([_outcomes(judge) for judge in np.asarray(verdicts, dtype=np.float64)]), prompts
    counts = np.stack([(outcomes == place).sum(axis=0) for place in range(len(_OUTCOMES))], axis=1)
    rests_on = counts.sum(axis=1) >= 2
    counts, prompt = counts[rests_on], np.asarray(prompt)[rests_on]
    alpha = _alpha(counts)
    if np.isnan(alpha):
        return None
    drawn = [_alpha(np.repeat(counts, times[prompt], axis=0)) for times in bootstrap.draws()]
    return interval(alpha, drawn, len(counts))


def _outcomes(verdicts: ArrayLike) -> NDArray[np.int64]:
    """0 for a loss, 1 for a tie, 2 for a win, -1 for no verdict."""
    array = np.asarray(verdicts, dtype=np.float64)
    return np.where(np.isnan(array), -1, np.sign(array - 0.5) + 1).astype(np.int64)


def _observed(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    """Share on the diagonal of each (..., k, k) table; NaN for an empty one."""
    with np.errstate(invalid="ignore"):
        return np.trace(tables, axis1=-2, axis2=-1) / tables.sum(axis=(-2, -1))


def _kappa(tables: NDArray[np.float64]) -> NDArray[np.float64]:
    with np.errstate(invalid="ignore", divide="ignore"):
        total = tables.sum(axis=(-2, -1))
        expected = (tables.sum(axis=-1) * tables.sum(axis=-2)).sum(axis=-1) / total**2
        return np.where(expected < 1, (_observed(tables) - expected) / (1 - expected), np.nan)


def _alpha(counts: NDArray[np.int64]) -> float:
    """Of (comparisons, outcomes) counts of judges; NaN where fewer than two outcomes occur."""
    import krippendorff

    if (counts.sum(axis=0) > 0).sum() < 2:
        return float("nan")
    return float(krippendorff.alpha(value_counts=counts, value_domain=_OUTCOMES, level_of_measurement="ordinal"))

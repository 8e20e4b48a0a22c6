"""Win rates at equal length: what they would be if the judge saw answers of the same length (arXiv:2404.04475)."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.win_rates import CONFIDENCE


@dataclass(frozen=True)
class LengthControlled:
    """A win rate at equal length, 0 to 1, and its 95 % interval."""

    win_rate: float | None  # None: the verdicts do not tell length from quality, and `remark` says why
    low: float | None
    high: float | None
    length_coef: float | None  # log-odds of a win per unit of tanh; above 0: longer answers win
    n: int  # verdicts
    remark: str | None


def length_controlled(
    won: ArrayLike, lengths: ArrayLike, baseline_lengths: ArrayLike, *, prompts: ArrayLike
) -> LengthControlled:
    """Logistic regression of the verdict on the difference in length, predicted at a difference of 0 (section 3).

    won:                       (verdicts,) 1 for a win over the baseline, 0 for a loss, in between for ties and weights.
    lengths, baseline_lengths: (verdicts,), in one unit; AlpacaEval counts characters.
    prompts:                   (verdicts,), each verdict's prompt; verdicts on one prompt are not independent.

    logit P(win) = theta + phi * tanh(d / std(d)), d the difference in length, std with n - 1: the verdict is a
    fraction, so this is a quasi-likelihood. The interval is theta's, from a covariance clustered by prompt, put through
    the logistic function.

    Two departures from AlpacaEval 2. The paper's third term, instruction difficulty, is left out: it comes from many
    models' verdicts on the same prompts. And nothing is regularised, where AlpacaEval chooses an L1 penalty by
    cross-validation and adds verdicts on a deliberately long and a deliberately short baseline. Where no finite fit is
    best there is no number, but a remark.
    """
    import statsmodels.api as sm
    from scipy.special import expit
    from scipy.stats import norm
    from statsmodels.tools.sm_exceptions import PerfectSeparationWarning

    share = np.asarray(won, dtype=np.float64)
    difference = np.asarray(lengths, dtype=np.float64) - np.asarray(baseline_lengths, dtype=np.float64)
    n = len(share)
    spread = difference.std(ddof=1) if n > 1 else 0.0
    if spread == 0 and np.any(difference):
        return LengthControlled(None, None, None, None, n, "all differences in length are alike")
    if share.min() == share.max() and share[0] in (0, 1):
        remark = f"all verdicts are {'wins' if share[0] else 'losses'}, whatever the length"
        return LengthControlled(float(share[0]), None, None, None, n, remark)
    mediator = np.tanh(difference / spread) if spread else None
    if mediator is not None and _separated(share, mediator):
        return LengthControlled(None, None, None, None, n, "length alone decides every verdict")
    columns = [np.ones(n)] if mediator is None else [np.ones(n), mediator]
    groups = np.unique(np.asarray(prompts), return_inverse=True)[1]
    several = groups.max() > 0
    model = sm.GLM(share, np.column_stack(columns), family=sm.families.Binomial())
    with warnings.catch_warnings():
        # Of weights that a curve meets exactly it warns that the fit may not be unique; `_separated` has looked.
        warnings.simplefilter("ignore", PerfectSeparationWarning)
        # One prompt alone has no covariance between prompts; its interval is left out below.
        fit = model.fit(cov_type="cluster", cov_kwds={"groups": groups}) if several else model.fit()
    theta, half_width = fit.params[0], norm.ppf((1 + CONFIDENCE) / 2) * fit.bse[0]
    return LengthControlled(
        win_rate=float(expit(theta)),
        low=float(expit(theta - half_width)) if several else None,
        high=float(expit(theta + half_width)) if several else None,
        length_coef=float(fit.params[1]) if mediator is not None else None,
        n=n,
        remark=None,
    )


def _separated(share: NDArray[np.float64], mediator: NDArray[np.float64]) -> bool:
    """Whether a threshold on the mediator tells wins from losses: no finite fit is best (Albert and Anderson 1984).

    A fractional verdict is part win and part loss.
    """
    wins, losses = mediator[share > 0], mediator[share < 1]
    return wins.min() >= losses.max() or losses.min() >= wins.max()

"""Bradley-Terry ratings of many models from the comparisons of two (Bradley and Terry 1952)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from rlhf.evaluation.statistics.win_rates import CONFIDENCE, Bootstrap

ELO = 400 / math.log(10)  # Elo points in one unit of log-odds
_AT_ONCE = 2_000_000  # numbers in the tables that are rated at once
_STEPS = 500  # a strength moves by up to 1 a step, and the last ones square the error


@dataclass(frozen=True)
class Rating:
    """One model's rating in log-odds of winning against the reference, and its 95 % interval over prompts."""

    model: str
    rating: float | None  # 0: as strong as the reference; None: no finite number fits best, and `remark` says why
    low: float | None  # None: no bound on this side
    high: float | None
    n: int  # comparisons that it took part in
    remark: str | None


def ratings(
    models: Sequence[str],
    first: ArrayLike,
    second: ArrayLike,
    second_won: ArrayLike,
    *,
    prompts: ArrayLike,
    reference: str,
    bootstrap: Bootstrap,
) -> list[Rating]:
    """The rating of each model, the strongest first.

    first, second: (comparisons,) int, places in `models`. A model's comparisons with itself say nothing.
    second_won:    (comparisons,) 1 where the second won, 0 where the first, 0.5 for a tie, half a win for both.
    prompts:       (comparisons,) int, each comparison's prompt, from 0 to bootstrap.prompts - 1.

    A rating is finite only for models that the reference reaches by a chain of wins and is reached from (Ford 1957). In
    a draw of prompts where one does not, that model's rating is infinite, and so may be a bound.
    """
    one, other, won = np.asarray(first), np.asarray(second), np.asarray(second_won, dtype=np.float64)
    counted = one != other
    one, other, won, prompt = one[counted], other[counted], won[counted], np.asarray(prompts)[counted]
    # Only pairs that met have a column: of many models most have not.
    cells, column = np.unique(
        np.concatenate([other, one]) * len(models) + np.concatenate([one, other]), return_inverse=True
    )
    by_prompt = np.zeros((bootstrap.prompts, len(cells)))
    np.add.at(by_prompt, (np.tile(prompt, 2), column), np.concatenate([won, 1 - won]))

    def tables(sums: NDArray[np.float64]) -> NDArray[np.float64]:
        wins = np.zeros((*sums.shape[:-1], len(models) ** 2))
        wins[..., cells] = sums
        return wins.reshape(*sums.shape[:-1], len(models), len(models))

    place = list(models).index(reference)
    wins = tables(by_prompt.sum(axis=0))
    strengths = bradley_terry(wins, reference=place)
    sums = bootstrap.sums(by_prompt)
    # Tables of many models are large; so many at once as hold _AT_ONCE numbers.
    parts = np.array_split(sums, math.ceil(len(sums) * len(models) ** 2 / _AT_ONCE))
    drawn = np.concatenate([bradley_terry(tables(part), reference=place) for part in parts])
    met = np.bincount(np.concatenate([one, other]), minlength=len(models))
    found = [
        Rating(
            model=model,
            rating=_finite(strengths[i]),
            low=_bound(drawn[:, i], (1 - CONFIDENCE) / 2) if np.isfinite(strengths[i]) else None,
            high=_bound(drawn[:, i], (1 + CONFIDENCE) / 2) if np.isfinite(strengths[i]) else None,
            n=int(met[i]),
            remark=_remark(strengths[i], wins[i].sum(), wins[:, i].sum(), reference),
        )
        for i, model in enumerate(models)
    ]
    order = sorted(range(len(models)), key=lambda i: (math.isnan(strengths[i]), -np.nan_to_num(strengths[i])))
    return [found[i] for i in order]


def bradley_terry(wins: ArrayLike, *, reference: int) -> NDArray[np.float64]:
    """The most likely log-strengths, (..., models), of tables of wins, (..., models, models), the reference's at 0.

    wins[..., i, j] says how often i beat j, ties as half in both places; P(i beats j) = 1 / (1 + exp(s_j - s_i)).
    +inf for a model that a chain of wins leads from to the reference and none back, -inf the other way round, NaN for
    one that no chain links to it. The rest are the most likely among themselves: comparisons with infinitely strong or
    weak models say nothing about them.
    """
    array = np.asarray(wins, dtype=np.float64)
    tables = array.reshape(-1, *array.shape[-2:])
    below, above = _reached(tables > 0, reference), _reached(np.swapaxes(tables, 1, 2) > 0, reference)
    strengths = np.where(above & ~below, np.inf, np.where(below & ~above, -np.inf, np.nan))
    # Most draws of prompts link the same models; those are rated at once.
    linked, group = np.unique(above & below, axis=0, return_inverse=True)
    for place, those in enumerate(linked):
        draws, rated = np.flatnonzero(group == place), np.flatnonzero(those)
        strengths[np.ix_(draws, rated)] = _most_likely(
            tables[np.ix_(draws, rated, rated)], int(np.searchsorted(rated, reference))
        )
    return strengths.reshape(array.shape[:-1])


def _reached(links: NDArray[np.bool_], start: int) -> NDArray[np.bool_]:
    """(tables, models): which models a chain of links, (tables, from, to), leads to; `start` itself among them."""
    found = np.zeros(links.shape[:2], dtype=bool)
    found[:, start] = True
    while True:
        further = found | (links & found[:, :, None]).any(axis=1)
        if np.array_equal(further, found):
            return found
        found = further


def _most_likely(wins: NDArray[np.float64], reference: int) -> NDArray[np.float64]:
    """(tables, models) by Newton's method, of tables that link every model to every other, both ways.

    There is one maximum then, and it is finite. All tables take each step together: a call of an optimiser for each
    takes a hundred times as long.
    """
    from scipy.special import expit

    met = wins + np.swapaxes(wins, 1, 2)
    free = np.delete(np.arange(wins.shape[-1]), reference)
    strengths = np.zeros(wins.shape[:2])
    for _ in range(_STEPS if len(free) else 0):
        chances = expit(strengths[:, :, None] - strengths[:, None, :])
        gradient = (wins - met * chances).sum(axis=2)[:, free]
        weights = met * chances * (1 - chances)
        curvature = np.eye(len(met[0])) * weights.sum(axis=2)[:, None] - weights
        step = np.zeros_like(strengths)
        step[:, free] = np.linalg.solve(curvature[:, free[:, None], free], gradient[..., None])[..., 0]
        # A step that moves no two models by more than 1 against each other raises the likelihood (Bach 2010, prop. 1).
        step /= np.maximum(1.0, np.ptp(step, axis=1, keepdims=True))
        strengths += step
        if np.abs(step).max() < 1e-6:  # the error left is about its square
            return strengths
    assert not len(free), "Newton's method with bounded steps converges"
    return strengths


def _finite(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _bound(drawn: NDArray[np.float64], level: float) -> float | None:
    """The percentile of one model's draws, infinite ones among them; draws that do not link it are left out."""
    # Without interpolation, which would make NaN of two infinite neighbours.
    linked = drawn[~np.isnan(drawn)]
    return _finite(np.quantile(linked, level, method="inverted_cdf")) if len(linked) else None


def _remark(strength: float, wins: float, losses: float, reference: str) -> str | None:
    if math.isfinite(strength):
        return None
    if math.isnan(strength):
        return f"no chain of comparisons links it to {reference}"
    if strength > 0:
        return (
            "it won every comparison"
            if not losses
            else f"neither {reference} nor a model that {reference} beats ever won against it or its like"
        )
    return (
        "it lost every comparison"
        if not wins
        else f"it and its like never won against {reference} or a model that beats {reference}"
    )

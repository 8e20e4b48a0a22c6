"""What else the verdicts of a comparison say: do judges agree, who wins at equal length, how strong is each candidate.

All of it is over the verdicts that a comparison has anyway; no judge is asked again.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.statistics.agreement import krippendorff_alpha, pair_agreement
from rlhf.evaluation.statistics.length_control import length_controlled
from rlhf.evaluation.statistics.ratings import ELO, ratings
from rlhf.evaluation.statistics.win_rates import Bootstrap, Estimate, verdicts

Wins = Mapping[str, Mapping[str, NDArray[np.float64]]]  # judge -> candidate -> (prompts,) 1, 0.5, 0; NaN: no verdict


def agreement(wins: Wins, bootstrap: Bootstrap) -> dict[str, Any]:
    """Between each two judges, and over all of them, on every candidate's verdicts against the baseline.

    {} with one judge. `pairs`: `judges`, `agreement` (share alike of win, tie and loss), `decided_agreement` (the same
    where neither ties), `kappa` (Cohen's), each with its interval, and `n` verdicts; `alpha`: Krippendorff's, ordinal.
    """
    if len(wins) < 2:
        return {}
    candidates = list(next(iter(wins.values())))
    prompts = np.tile(np.arange(bootstrap.prompts), len(candidates))
    given = {judge: np.concatenate([by[name] for name in candidates]) for judge, by in wins.items()}
    pairs = []
    for one, other in combinations(given, 2):
        found = pair_agreement(given[one], given[other], prompts=prompts, bootstrap=bootstrap)
        if found is not None:
            numbers = {
                "agreement": found.agreement,
                "decided_agreement": found.decided_agreement,
                "kappa": found.kappa,
            }
            pairs.append({"judges": [one, other], "n": found.agreement.n, **_plain(numbers)})
    alpha = krippendorff_alpha(np.stack(list(given.values())), prompts=prompts, bootstrap=bootstrap)
    return {"pairs": pairs, **_plain({"alpha": alpha})}


def _plain(numbers: Mapping[str, Estimate | None]) -> dict[str, Any]:
    return {name: None if found is None else found.mean for name, found in numbers.items()} | {
        f"{name}_ci": None if found is None else found.ci for name, found in numbers.items()
    }


def at_equal_length(wins: NDArray[np.float64], texts: Sequence[str], baseline_texts: Sequence[str]) -> dict[str, Any]:
    """`length_controlled_win_rate`, 0 to 1, with `_ci`, and `_remark` where the verdicts allow no number.

    wins: (prompts,) against the baseline, NaN where there is none. Lengths are in characters, as AlpacaEval's.
    """
    kept = np.flatnonzero(np.isfinite(wins))
    name = "length_controlled_win_rate"
    if len(kept) == 0:
        return {name: None, f"{name}_ci": None, f"{name}_remark": "there is no verdict"}
    found = length_controlled(
        wins[kept],
        np.array([len(text) for text in texts])[kept],
        np.array([len(text) for text in baseline_texts])[kept],
        prompts=kept,
    )
    bounds = None if found.low is None or found.high is None else [found.low, found.high]
    return {name: found.win_rate, f"{name}_ci": bounds, f"{name}_remark": found.remark}


def strengths(
    scores: Mapping[str, Sequence[float]] | None,
    wins: Mapping[str, NDArray[np.float64]],
    *,
    baseline: str,
    tie_margin: float,
    bootstrap: Bootstrap,
) -> list[dict[str, Any]]:
    """Bradley-Terry ratings of all candidates in Elo points over the baseline, the strongest first; [] of two or fewer.

    scores: each candidate's by a judge that scores, which gives a verdict on every two; None where the judge has
    compared with the baseline alone: then its `wins` are all there is, candidate -> (prompts,).
    """
    names = [baseline, *(name for name in wins if name != baseline)]
    if len(names) < 3:
        return []
    if scores is not None:
        met = list(combinations(range(len(names)), 2))
        won = [verdicts(scores[names[second]], scores[names[first]], tie_margin=tie_margin) for first, second in met]
    else:
        met, won = [(0, place) for place in range(1, len(names))], [wins[name] for name in names[1:]]
    second_won = np.concatenate(won)
    kept = np.isfinite(second_won)
    first, second = (np.repeat([pair[side] for pair in met], bootstrap.prompts)[kept] for side in (0, 1))
    found = ratings(
        names,
        first,
        second,
        second_won[kept],
        prompts=np.tile(np.arange(bootstrap.prompts), len(met))[kept],
        reference=baseline,
        bootstrap=bootstrap,
    )
    return [
        {
            "candidate": rating.model,
            "elo": _elo(rating.rating),
            "elo_ci": [_elo(rating.low), _elo(rating.high)],
            "n": rating.n,
            "remark": rating.remark,
        }
        for rating in found
    ]


def _elo(rating: float | None) -> float | None:
    return None if rating is None else ELO * rating

"""From published verdicts to the numbers of their report. Shares are percentages.

`summarise` returns what report.json holds; its keys are stable.
"""

from __future__ import annotations

import functools
import itertools
import math
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from rlhf.evaluation.published.verdicts import Verdict
from rlhf.evaluation.published.verdicts_text import remarks, statement
from rlhf.evaluation.statistics.agreement import krippendorff_alpha, pair_agreement
from rlhf.evaluation.statistics.length_control import length_controlled
from rlhf.evaluation.statistics.position import consistency, position_bias
from rlhf.evaluation.statistics.ratings import ELO, ratings
from rlhf.evaluation.statistics.win_rates import Bootstrap, Estimate, by_task, of_shares

_BINS, _FEWEST_IN_BIN = 10, 20  # of differences in length
_Bootstraps = Callable[[int], Bootstrap]  # by the number of prompts


@dataclass
class _Pair:
    """What a file says of one model against one baseline, in whichever order the two stand."""

    baseline: str
    model: str
    verdicts: list[Verdict] = field(default_factory=list)  # as they stand
    won: list[float | None] = field(default_factory=list)  # of each: 1 where `model` is better
    lengths: list[tuple[int, int] | None] = field(default_factory=list)  # characters of model and baseline


def summarise(verdicts: Sequence[Verdict], *, bootstrap_samples: int, seed: int) -> dict[str, Any]:
    """The numbers of all verdicts as JSON values.

    With one pair of models its numbers stand at the top, `win_rate` that of the model under test: the second generator
    of the pair's first row. With several pairs `win_rate` is null and `pairs` has the numbers of each. Three models or
    more have `ratings`, two judges or more `agreement`.
    """
    bootstraps = functools.cache(lambda prompts: Bootstrap(prompts, samples=bootstrap_samples, seed=seed))
    pairs = _pairs(verdicts)
    report: dict[str, Any] = {"win_rate": None, "standard_error": None, **_counts(verdict.won for verdict in verdicts)}
    if len(pairs) == 1:
        report |= _numbers(pairs[0], bootstraps)
    else:
        report["pairs"] = [_numbers(pair, bootstraps) for pair in pairs]
        report |= _position(verdicts)
    judged = [verdict for verdict in verdicts if verdict.won is not None]
    if len({name for verdict in judged for name in verdict.generators}) > 2:
        report["ratings"] = _ratings(judged, bootstraps)
    if len({verdict.judge for verdict in judged}) > 1:
        report["agreement"] = _agreement(judged, bootstraps)
    report["bootstrap_samples"] = bootstrap_samples
    report["statement"] = statement(report)
    report["remarks"] = remarks(report)
    return report


def _pairs(verdicts: Sequence[Verdict]) -> list[_Pair]:
    """In the order of the file."""
    found: dict[tuple[str, str], _Pair] = {}
    for verdict in verdicts:
        first, second = verdict.generators
        turned = first != second and (second, first) in found
        pair = found[second, first] if turned else found.setdefault((first, second), _Pair(first, second))
        one, other = verdict.outputs
        won, lengths = verdict.won, None if one is None or other is None else (len(other), len(one))
        if turned:
            won, lengths = None if won is None else 1 - won, lengths and lengths[::-1]
        pair.verdicts.append(verdict)
        pair.won.append(won)
        pair.lengths.append(lengths)
    return list(found.values())


def _counts(won: Iterable[float | None]) -> dict[str, int]:
    values = list(won)
    given = [value for value in values if value is not None]
    return {
        "n": len(given),
        "draws": sum(value == 0.5 for value in given),
        "without_verdict": len(values) - len(given),
    }


def _numbers(pair: _Pair, bootstraps: _Bootstraps) -> dict[str, Any]:
    """The standard error is the sample standard deviation over the square root of n, as AlpacaEval's."""
    kept = [place for place, won in enumerate(pair.won) if won is not None]
    numbers: dict[str, Any] = {"model": pair.model, "baseline": pair.baseline}
    if not kept:
        return numbers | {"win_rate": None, "standard_error": None, **_counts(pair.won)}
    won = np.array([pair.won[place] for place in kept], dtype=np.float64)
    verdicts = [pair.verdicts[place] for place in kept]
    prompts, bootstrap = _prompts(verdicts, bootstraps)

    def rate(places: NDArray[np.int64]) -> dict[str, Any]:
        return _percent("win_rate", _mean(won[places], prompts[places], bootstrap)) | {"n": len(places)}

    numbers |= {
        **rate(np.arange(len(won))),
        "standard_error": 100 * float(np.std(won, ddof=1)) / math.sqrt(len(won)) if len(won) > 1 else None,
        **_counts(pair.won),
        "prompts": bootstrap.prompts,
    }
    measured = np.array([place for place, at in enumerate(kept) if pair.lengths[at] is not None], dtype=np.int64)
    if len(measured):
        lengths = np.array([pair.lengths[kept[place]] for place in measured])
        numbers |= _length(won[measured], lengths, prompts[measured])
        numbers["length_bins"] = [
            {
                "difference": float(difference.mean()),
                "lowest": int(difference.min()),
                "highest": int(difference.max()),
                **rate(measured[places]),
            }
            for places, difference in _bins(lengths[:, 0] - lengths[:, 1])
        ]
    datasets = by_task([verdict.dataset for verdict in verdicts])
    if datasets:
        numbers["datasets"] = {name: rate(places) for name, places in datasets.items()}
    return numbers | _position(verdicts)


def _prompts(verdicts: Sequence[Verdict], bootstraps: _Bootstraps) -> tuple[NDArray[np.int64], Bootstrap]:
    """Each verdict's prompt as a number, in the order of the file, and the draws of these prompts."""
    numbers: dict[str, int] = {}
    places = [numbers.setdefault(verdict.prompt, len(numbers)) for verdict in verdicts]
    return np.array(places, dtype=np.int64), bootstraps(len(numbers))


def _mean(values: NDArray[np.float64], prompts: NDArray[np.int64], bootstrap: Bootstrap) -> Estimate:
    totals = np.bincount(prompts, values, minlength=bootstrap.prompts)
    estimate = bootstrap.ratio(totals, np.bincount(prompts, minlength=bootstrap.prompts))
    # Summed by prompt a mean may differ from the plain one in its last bit; the published number is the plain one.
    return of_shares(Estimate(float(values.mean()), estimate.low, estimate.high, estimate.n), values)


def _percent(name: str, estimate: Estimate) -> dict[str, Any]:
    return {name: 100 * estimate.mean, f"{name}_ci": [100 * bound for bound in estimate.ci]}


def _plain(name: str, estimate: Estimate | None) -> dict[str, Any]:
    return {name: None, f"{name}_ci": None} if estimate is None else {name: estimate.mean, f"{name}_ci": estimate.ci}


def _length(won: NDArray[np.float64], lengths: NDArray[np.int64], prompts: NDArray[np.int64]) -> dict[str, Any]:
    found = length_controlled(won, lengths[:, 0], lengths[:, 1], prompts=prompts)
    bounded = found.low is not None and found.high is not None
    return {
        "mean_length": float(lengths[:, 0].mean()),
        "baseline_mean_length": float(lengths[:, 1].mean()),
        "length_controlled_win_rate": None if found.win_rate is None else 100 * found.win_rate,
        "length_controlled_win_rate_ci": [100 * found.low, 100 * found.high] if bounded else None,  # type: ignore[operator]
        "length_controlled_n": found.n,
        "length_coef": found.length_coef,
        "length_controlled_remark": found.remark,
    }


def _bins(difference: NDArray[np.int64]) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Places and differences of verdicts in groups of like size, by difference; [] where there are too few for two."""
    count = min(_BINS, len(difference) // _FEWEST_IN_BIN)
    if count < 2:
        return []
    return [(places, difference[places]) for places in np.array_split(np.argsort(difference, kind="stable"), count)]


def _sides(verdict: Verdict) -> tuple[tuple[str, str], tuple[str, str]]:
    """The two outputs with their generators, as shown."""
    (first, second), (one, other) = verdict.generators, verdict.outputs
    return (first, one or ""), (second, other or "")


def _position(verdicts: Sequence[Verdict]) -> dict[str, Any]:
    """`position_bias` over comparisons that one judge saw in both orders; {} where there is none."""
    orders: dict[Any, tuple[list[float], list[float]]] = {}
    for verdict in verdicts:
        sides = _sides(verdict)
        if verdict.won is not None and sides[0] != sides[1]:
            key = (verdict.judge, verdict.prompt, *sorted(sides))
            orders.setdefault(key, ([], []))[int(sides[0] > sides[1])].append(1 - verdict.won)
    both = [(np.mean(forth), np.mean(back)) for forth, back in orders.values() if forth and back]
    bias = position_bias(list(itertools.chain(*both)))
    if bias is None:
        return {}
    same = consistency([forth for forth, _ in both], [back for _, back in both])
    return {
        "position_bias": {
            "first_shown": 100 * bias.share,
            "first_shown_ci": [100 * bias.low, 100 * bias.high],
            "p_value": bias.p_value,
            "n": bias.n,
            "consistent": None if same is None else 100 * same[0],
            "consistent_n": 0 if same is None else same[1],
        }
    }


def _ratings(verdicts: Sequence[Verdict], bootstraps: _Bootstraps) -> dict[str, Any]:
    """Of all generators; the reference is whoever is `generator_1` most often."""
    models = list(dict.fromkeys(name for verdict in verdicts for name in verdict.generators))
    reference = Counter(verdict.generators[0] for verdict in verdicts).most_common(1)[0][0]
    prompts, bootstrap = _prompts(verdicts, bootstraps)
    numbers = {model: place for place, model in enumerate(models)}
    found = ratings(
        models,
        [numbers[verdict.generators[0]] for verdict in verdicts],
        [numbers[verdict.generators[1]] for verdict in verdicts],
        np.array([verdict.won for verdict in verdicts], dtype=np.float64),
        prompts=prompts,
        reference=reference,
        bootstrap=bootstrap,
    )

    def scaled(value: float | None, unit: float) -> float | None:
        return None if value is None else unit * value

    return {
        "reference": reference,
        "models": [
            {
                "model": rating.model,
                "rating": rating.rating,
                "rating_ci": [rating.low, rating.high],
                "elo": scaled(rating.rating, ELO),
                "elo_ci": [scaled(rating.low, ELO), scaled(rating.high, ELO)],
                "n": rating.n,
                "remark": rating.remark,
            }
            for rating in found
        ],
    }


def _agreement(verdicts: Sequence[Verdict], bootstraps: _Bootstraps) -> dict[str, Any]:
    """Between judges on the same two outputs for the same prompt, in whichever order they saw them.

    A judge's several verdicts on one comparison count as their mean.
    """
    judges = list(dict.fromkeys(verdict.judge for verdict in verdicts))
    rows, columns = {judge: place for place, judge in enumerate(judges)}, dict[Any, int]()
    at: list[tuple[int, int]] = []
    firsts: list[Verdict] = []  # of each comparison
    toward: list[float] = []  # 1 where the side that sorts second is better
    for verdict in verdicts:
        sides = _sides(verdict)
        key = (verdict.prompt, *sorted(sides))
        if key not in columns:
            columns[key] = len(columns)
            firsts.append(verdict)
        at.append((rows[verdict.judge], columns[key]))
        assert verdict.won is not None, "only verdicts given are compared"
        toward.append(1 - verdict.won if sides[0] > sides[1] else verdict.won)
    totals, counts = np.zeros((len(judges), len(columns))), np.zeros((len(judges), len(columns)))
    np.add.at(totals, tuple(np.transpose(at)), toward)
    np.add.at(counts, tuple(np.transpose(at)), 1)
    table = np.divide(totals, counts, out=np.full_like(totals, np.nan), where=counts > 0)
    prompts, bootstrap = _prompts(firsts, bootstraps)
    pairs = []
    for one, other in itertools.combinations(range(len(judges)), 2):
        found = pair_agreement(table[one], table[other], prompts=prompts, bootstrap=bootstrap)
        if found is not None:
            decided = found.decided_agreement
            pairs.append(
                {
                    "judges": [judges[one], judges[other]],
                    "n": found.agreement.n,
                    **_percent("agreement", found.agreement),
                    **({} if decided is None else _percent("decided_agreement", decided) | {"decided_n": decided.n}),
                    **_plain("kappa", found.kappa),
                }
            )
    alpha = krippendorff_alpha(table, prompts=prompts, bootstrap=bootstrap)
    return {"judges": judges, **_plain("alpha", alpha), "n": alpha.n if alpha else 0, "pairs": pairs}

"""Candidates of a comparison as the points of a study, so that the paper's questions can be asked of them too."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np

from rlhf.evaluation.statistics.win_rates import Bootstrap, verdicts
from rlhf.evaluation.sweeps.points import PerPrompt, Point, size_title
from rlhf.evaluation.sweeps.summary import METHODS, Measured

if TYPE_CHECKING:
    from rlhf.evaluation.comparison.answers import Answers


def measured_of(
    answers: Mapping[str, Answers], judge: str, unit: str, *, tie_margin: float, bootstrap_samples: int, seed: int
) -> Measured | None:
    """The base, SFT and PPO models among the candidates, by size; None where there are fewer than two of them.

    Models whose weights differ by 2 % at most, as by an added token, are of one size.
    judge: one that scores; unit: of its scores.
    """
    about = {name: given.about for name, given in answers.items()}
    named = [name for name in answers if about[name].get("method") in METHODS and about[name].get("parameters")]
    named.sort(key=lambda name: about[name]["parameters"])
    if len(named) < 2:
        return None
    sizes: dict[str, int] = {}
    for name in named:
        weights, last = about[name]["parameters"], max(sizes.values(), default=0)
        sizes[name] = last if weights <= 1.02 * last else weights
    named.sort(key=lambda name: (sizes[name], METHODS.index(about[name]["method"])))
    points = [_point(name, answers[name], judge, size_title(sizes[name])) for name in named]
    sft = {point.base: point for point in reversed(points) if point.method == "sft"}
    points = [_with_wins(point, sft.get(point.base), tie_margin) for point in points]
    items = {len(right) for point in points for right in point.benchmark}
    return Measured(
        points=tuple(points),
        kl_curves=_curves(points, lambda p: p.kl_coef, lambda p: (p.base, p.ptx_coef)),
        ptx_curves=_curves(points, lambda p: p.ptx_coef, lambda p: (p.base, p.kl_coef)),
        best_of_n=(),
        bootstrap=Bootstrap(len(answers[named[0]].texts), samples=bootstrap_samples, seed=seed),
        judge=judge.replace("_", "-"),
        units={"judge": unit, "proxy": "reward-model score"},
        largest=points[-1].base,
        independent=judge != "reward_model",
        items=Bootstrap(max(items), samples=bootstrap_samples, seed=seed) if items else None,
    )


def _point(name: str, given: Answers, judge: str, base: str) -> Point:
    per_prompt: dict[str, PerPrompt] = {
        "judge": np.asarray(given.scores[judge], dtype=np.float64),
        "tokens": np.asarray(given.tokens, dtype=np.float64),
    }
    if given.kl is not None:
        per_prompt["kl"] = np.asarray(given.kl, dtype=np.float64)
    if judge != "reward_model" and "reward_model" in given.scores:
        per_prompt["proxy"] = np.asarray(given.scores["reward_model"], dtype=np.float64)
    return Point(
        label=name,
        method=given.about["method"],
        base=base,
        parameters=given.about["parameters"],
        per_prompt={quantity: (array,) for quantity, array in per_prompt.items()},
        text_loss=() if given.text_loss is None else (given.text_loss,),
        benchmark=(np.asarray(given.right),) if given.right else (),
        kl_coef=given.about["kl_coef"],
        ptx_coef=given.about["ptx_coef"],
    )


def _with_wins(point: Point, sft: Point | None, tie_margin: float) -> Point:
    """With its wins over the SFT model of its size, where that is a candidate."""
    if sft is None:
        return point
    wins = verdicts(point.per_prompt["judge"][0], sft.per_prompt["judge"][0], tie_margin=tie_margin)
    return replace(point, per_prompt={**point.per_prompt, "wins_sft": (wins,)})


def _curves(
    points: Sequence[Point], along: Callable[[Point], float | None], alike: Callable[[Point], tuple[object, ...]]
) -> tuple[tuple[str, ...], ...]:
    """Labels of PPO's policies that differ in one coefficient, the smallest first; of equal ones the first."""
    groups: dict[tuple[object, ...], dict[float, Point]] = {}
    for point in points:
        coefficient = along(point)
        if coefficient is not None and "kl" in point.per_prompt:
            groups.setdefault(alike(point), {}).setdefault(coefficient, point)
    return tuple(tuple(group[key].label for key in sorted(group)) for group in groups.values() if len(group) > 1)

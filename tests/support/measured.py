"""Points of a made-up study, whose answers are known."""

from __future__ import annotations

from typing import Any

import numpy as np

from rlhf.evaluation.statistics import best_of_n
from rlhf.evaluation.statistics.win_rates import Bootstrap
from rlhf.evaluation.sweeps.points import Point
from rlhf.evaluation.sweeps.summary import BestOfN, Measured

PROMPTS = 300
ITEMS = 1000  # of the held-out tasks
NOISE = np.random.default_rng(0).normal(size=PROMPTS) * 0.05
SFT = 0.5
KLS = {0.0: 40.0, 0.05: 4.0, 0.2: 1.0, 0.8: 0.3}  # by coefficient


def gold(kl: float) -> float:
    """Gao et al.'s RL form with a peak at exp(2 (0.3 / 0.15 - 1)) = 7.4 nats."""
    d = kl**0.5
    return SFT + d * (0.3 - 0.15 * np.log(d))


def point(method: str, judge: list[float], kl: float, base: str = "m", label: str | None = None, **more: Any) -> Point:
    arrays, proxy = tuple(mean + NOISE for mean in judge), more.pop("proxy", 0.0)
    per_prompt = {
        "judge": arrays,
        "proxy": tuple(np.full(PROMPTS, proxy) for _ in judge),
        "kl": tuple(np.full(PROMPTS, kl) for _ in judge),
        "tokens": tuple(np.full(PROMPTS, 10.0) for _ in judge),
        "wins_sft": tuple((array > SFT + NOISE) * 0.8 + 0.1 for array in arrays),
        "wins_largest": tuple((array > SFT + NOISE) * 0.8 + 0.1 for array in arrays),
    }
    taught = more.pop("benchmark", None)
    right = () if taught is None else tuple((np.arange(ITEMS) < round(taught * ITEMS)).astype(float) for _ in judge)
    return Point(label or method, method, base, more.pop("parameters", 10), per_prompt, benchmark=right, **more)


def study(*, base: str = "m", parameters: int = 10) -> Measured:
    """One size: base, SFT, four KL coefficients with two seeds, three ptx coefficients, best-of-n."""
    points = [
        point("base", [0.1], 40.0, base, parameters=parameters, benchmark=0.9),
        point("sft", [SFT], 0.0, base, parameters=parameters, benchmark=0.5),
    ]
    for coef, kl in KLS.items():
        points.append(
            point(
                "ppo",
                [gold(kl) - 0.002, gold(kl) + 0.002],
                kl,
                base,
                f"ppo KL {coef:g}",
                parameters=parameters,
                proxy=kl**0.5,
                kl_coef=coef,
                ptx_coef=0.0,
                benchmark=0.4 + 0.05 * coef,
            )
        )
    for coef, taught in ((3.0, 0.7), (30.0, 0.88)):
        points.append(
            point(
                "ppo-ptx",
                [gold(1.0) - 0.05, gold(1.0) - 0.052],
                1.2,
                base,
                f"ppo-ptx ptx {coef:g}",
                parameters=parameters,
                proxy=0.9,
                kl_coef=0.2,
                ptx_coef=coef,
                benchmark=taught,
            )
        )
    ns = best_of_n.powers_of_two(64)
    kls = tuple(best_of_n.kl(n) for n in ns)
    half = NOISE[: PROMPTS // 2]
    best = BestOfN(
        base=base,
        n=tuple(ns),
        kl=kls,
        judge=tuple(SFT + 0.1 * kl**0.5 - 0.02 * kl + half for kl in kls),
        proxy=tuple(np.full(len(half), kl**0.5) for kl in kls),
        wins_sft=tuple(np.full(len(half), 0.6) for _ in kls),
        bootstrap=Bootstrap(len(half), samples=200, seed=0),
    )
    return Measured(
        points=tuple(points),
        kl_curves=(tuple(f"ppo KL {coef:g}" for coef in KLS),),
        ptx_curves=(("ppo KL 0.2", "ppo-ptx ptx 3", "ppo-ptx ptx 30"),),
        best_of_n=(best,),
        bootstrap=Bootstrap(PROMPTS, samples=200, seed=0),
        items=Bootstrap(ITEMS, samples=200, seed=0),
        judge="gold",
        units={"judge": "gold score (0 to 1)", "proxy": "reward-model score"},
        largest=base,
        prompts_of_best_of_n=range(PROMPTS // 2),
    )


def sizes() -> Measured:
    """Two sizes, each with base, SFT, PPO and PPO-ptx."""
    points = []
    for base, parameters, sft in (("s", 100, 0.4), ("l", 10_000, 0.5)):
        points += [
            point("base", [0.1], 30.0, base, f"{base} base", parameters=parameters, benchmark=0.8),
            point("sft", [sft], 0.0, base, f"{base} sft", parameters=parameters, benchmark=0.5),
            point("ppo", [sft + 0.2], 1.0, base, f"{base} ppo", parameters=parameters, kl_coef=0.2, ptx_coef=0.0),
            point("ppo-ptx", [sft + 0.15], 1.0, base, f"{base} ptx", parameters=parameters, kl_coef=0.2, ptx_coef=27.8),
        ]
    return Measured(
        points=tuple(points),
        kl_curves=(),
        ptx_curves=(("s ppo", "s ptx"), ("l ppo", "l ptx")),
        best_of_n=(),
        bootstrap=Bootstrap(PROMPTS, samples=200, seed=0),
        items=Bootstrap(ITEMS, samples=200, seed=0),
        judge="gold",
        units={"judge": "gold score (0 to 1)", "proxy": "reward-model score"},
        largest="l",
    )

"""What every gathered model answers to the shared prompts, and what that is worth: from policies to points.

Each answer, likelihood and score is looked up in the run's AnswerCache first, so the report of a sweep that grew costs
only what is new in it.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.config import Config
from rlhf.data.records import DataSource, Prompt
from rlhf.evaluation.answering.answers import Generated, Model, answer, answer_few_shot
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.answering.candidates import FEW_SHOT, parameters
from rlhf.evaluation.answering.multiple_choice import chosen
from rlhf.evaluation.answering.samples import Scorer, sample_many
from rlhf.evaluation.judges.judge import GoldJudge, RewardModelJudge
from rlhf.evaluation.statistics import best_of_n
from rlhf.evaluation.statistics.win_rates import Bootstrap, verdicts
from rlhf.evaluation.sweeps.gather import KL_COEF, PTX_COEF, Gathered, Setting
from rlhf.evaluation.sweeps.points import PerPrompt, Point
from rlhf.evaluation.sweeps.summary import BestOfN, Measured
from rlhf.evaluation.tasks.benchmarks import benchmark_of, gets_right


@dataclass(frozen=True)
class Answered:
    """One model's answers, and what they are worth."""

    generated: Generated
    judge: PerPrompt
    proxy: PerPrompt | None  # by the reward model that policies of this start were trained on
    kl: PerPrompt | None  # from the SFT model that it started from
    benchmark: PerPrompt | None  # 1 for each held-out item that it gets right, else 0

    def row(self, place: int) -> dict[str, Any]:
        """Its part of a line of responses.jsonl."""
        scores = {"judge": self.judge} | ({} if self.proxy is None else {"reward_model": self.proxy})
        return {
            "response": self.generated.texts[place],
            "tokens": self.generated.lengths[place],
            "ended": self.generated.ended[place],
            "kl": None if self.kl is None else float(self.kl[place]),
            "scores": {name: float(values[place]) for name, values in scores.items()},
            "verdicts": {},  # judges here score
        }


@dataclass(frozen=True)
class Study:
    """A report's measurements and the answers behind them."""

    measured: Measured
    answers: Mapping[str, Answered]  # by point, its first seed's
    paths: Mapping[str, str]  # by point


@dataclass(frozen=True)
class Family:
    """What the policies of one setting's seed start from."""

    reference: str
    reward_model: str | None


class Measurer:
    """Measures models on `prompts`. The judge is the reward model at `judge`, or without one the data's gold score."""

    def __init__(
        self, prompts: Sequence[Prompt], data: DataSource, config: Config, cache: AnswerCache, judge: Path | None
    ) -> None:
        self.prompts, self.config = prompts, config
        self._data, self._cache, self.judge = data, cache, judge
        self._benchmark = benchmark_of(config.compare, data)
        self._scorer: tuple[str, Scorer] | None = None

    @property
    def items(self) -> int:
        """Of the benchmark; 0 without one."""
        return 0 if self._benchmark is None else len(self._benchmark.items)

    def model(self, path: str, name: str, family: Family) -> Answered:
        """A model's own samples, its KL from the family's SFT model and its scores."""
        given = answer(path, name, self.prompts, self._data, self.config, self._cache)
        if path == family.reference:
            kl = np.zeros(len(self.prompts))
        else:
            assert given.logprobs is not None, "they are its own samples"
            theirs = Model(family.reference, self.config, self._cache).logprobs(given.prompt_ids, given.response_ids)
            kl = np.asarray(given.logprobs) - np.asarray(theirs)
        return self._answered(given, family, kl, self._right(path))

    def few_shot(self, path: str, name: str, family: Family, shots: int) -> Answered:
        """The same after `shots` demonstrations: no distribution that a KL could be measured of."""
        given = answer_few_shot(path, name, shots, self.prompts, self._data, self.config, self._cache)
        return self._answered(given, family, None, None)

    def best_of_n(self, base: str, family: Family, count: int, prompts: int, sft: Answered) -> BestOfN:
        """Best-of-n from the family's SFT model for n = 1, 2, 4, ... up to `count`, on the first `prompts` prompts."""
        assert family.reward_model is not None, "it picks"
        some = self.prompts[:prompts]
        samples = sample_many(family.reference, some, count, self.config, self._cache, reward_model=family.reward_model)
        proxy = np.asarray(samples.scores).T
        judge = np.stack([self.judged(draw, some) for draw in samples.draws], axis=1)
        won = np.stack([self.won(column, sft.judge[:prompts]) for column in judge.T], axis=1)
        ns = best_of_n.powers_of_two(count)
        return BestOfN(
            base=base,
            n=tuple(ns),
            kl=tuple(best_of_n.kl(n) for n in ns),
            judge=tuple(best_of_n.best_of(proxy, judge, n) for n in ns),
            proxy=tuple(best_of_n.best_of(proxy, proxy, n) for n in ns),
            wins_sft=tuple(best_of_n.best_of(proxy, won, n) for n in ns),
            bootstrap=bootstrap(len(some), self.config),
        )

    def judged(self, given: Generated, prompts: Sequence[Prompt]) -> PerPrompt:
        """(prompts,): the judge's score of each answer."""
        if self.judge is not None:
            return self._scores(str(self.judge), given, prompts)
        assert self._data.gold is not None, "the stage asked for it"
        return np.asarray(GoldJudge(self._data.gold).score(prompts, given.texts, [[]] * len(given.texts)))

    def won(self, scores: PerPrompt, others: PerPrompt) -> PerPrompt:
        return verdicts(scores, others, tie_margin=self.config.judge.tie_margin)

    def _answered(
        self, given: Generated, family: Family, kl: PerPrompt | None, benchmark: PerPrompt | None
    ) -> Answered:
        own = family.reward_model
        return Answered(
            generated=given,
            judge=self.judged(given, self.prompts),
            proxy=None if own is None else self._scores(own, given, self.prompts),
            kl=kl,
            benchmark=benchmark,
        )

    def _scores(self, path: str, given: Generated, prompts: Sequence[Prompt]) -> PerPrompt:
        if self._scorer is None or self._scorer[0] != path:
            self._scorer = (path, Scorer(path, self.config, self._cache))  # one in memory at a time
        return np.asarray(self._scorer[1].scores(given, prompts))

    def _right(self, path: str) -> PerPrompt | None:
        """Which items of the benchmark it gets right, (items,) 1 or 0; None where the data has none."""
        if self._benchmark is None:
            return None
        items = self._benchmark.items
        return np.array(gets_right(items, chosen(Model(path, self.config, self._cache).option_logprobs(items))))


def bootstrap(prompts: int, config: Config) -> Bootstrap:
    return Bootstrap(prompts, samples=config.compare.bootstrap_samples, seed=config.seed)


def families(gathered: Gathered, base: str) -> list[Family]:
    """Every SFT model of one size with the reward model of its policies, in their order."""
    found = {
        str(policy.reference): Family(str(policy.reference), None if reward is None else str(reward))
        for setting in gathered.settings
        if setting.base == base
        for policy in setting.policies
        for reward in [policy.reward_model]
    }
    return list(found.values())


def study(gathered: Gathered, measurer: Measurer) -> Study:
    """Measures base, SFT and every setting of every size, and best-of-n from each size's first SFT model."""
    config = measurer.config
    answers: dict[str, list[Answered]] = {}
    about: dict[str, dict[str, Any]] = {}
    paths: dict[str, str] = {}
    several = len(gathered.bases) > 1

    def add(label: str, method: str, base: str, path: str, measured: Answered, **more: Any) -> None:
        answers.setdefault(label, []).append(measured)
        paths.setdefault(label, path)
        about.setdefault(label, {"method": method, "base": base, **more})

    starts_of = {base: families(gathered, base) for base in gathered.bases}
    total = len(gathered.bases) + sum(map(len, starts_of.values())) + len(gathered.policies)
    order = itertools.count(1)

    def numbered(name: str) -> str:
        return f"{next(order)} of {total}: {name}"

    for base, path in gathered.bases.items():
        before = f"{base} " if several else ""
        starts = starts_of[base]
        add(f"{before}base", "base", base, str(path), measurer.model(str(path), numbered(f"{before}base"), starts[0]))
        if config.report.few_shot:
            shown = measurer.few_shot(str(path), f"{before}{FEW_SHOT}", starts[0], config.report.few_shot)
            add(f"{before}{FEW_SHOT}", FEW_SHOT, base, str(path), shown)
        for start in starts:
            made = measurer.model(start.reference, numbered(f"{before}sft"), start)
            add(f"{before}sft", "sft", base, start.reference, made)
    for setting in gathered.settings:
        label = setting.label(base=several)
        for policy in setting.policies:
            start = Family(str(policy.reference), None if policy.reward_model is None else str(policy.reward_model))
            made = measurer.model(str(policy.model), numbered(label), start)
            coefficients = {"kl_coef": setting.kl_coef, "ptx_coef": setting.ptx_coef}
            jobs = tuple(policy.job for policy in setting.policies)
            add(label, setting.method, setting.base, str(policy.model), made, jobs=jobs, **coefficients)

    largest = list(gathered.bases)[-1]
    sft = {base: answers[f"{base} sft" if several else "sft"] for base in gathered.bases}
    settings = {setting.label(base=several): setting for setting in gathered.settings}
    weights = {base: parameters(str(path)) for base, path in gathered.bases.items()}
    points = []
    for label, seeds in answers.items():
        base = about[label]["base"]
        references = _references(settings.get(label), starts_of[base], sft[base], len(seeds))
        points.append(_point(label, about[label], seeds, references, sft[largest][0], measurer, weights[base]))
    some = min(config.report.best_of_prompts, len(measurer.prompts)) if config.report.best_of else 0
    best = [
        measurer.best_of_n(base, starts[0], config.report.best_of, some, sft[base][0])
        for base, starts in starts_of.items()
        if some and starts[0].reward_model is not None
    ]
    measured = Measured(
        points=tuple(points),
        kl_curves=_labels(gathered, KL_COEF, several),
        ptx_curves=_labels(gathered, PTX_COEF, several),
        best_of_n=tuple(best),
        bootstrap=bootstrap(len(measurer.prompts), config),
        judge="gold" if measurer.judge is None else "reward-model",
        units={
            "judge": GoldJudge.unit if measurer.judge is None else RewardModelJudge.unit,
            "proxy": "reward-model score",
        },
        largest=largest,
        independent=not gathered.trained_on(measurer.judge),
        items=None if measurer.items == 0 else bootstrap(measurer.items, config),
        prompts_of_best_of_n=range(some),
    )
    return Study(measured, {label: seeds[0] for label, seeds in answers.items()}, paths)


def _references(
    setting: Setting | None, starts: Sequence[Family], sft: Sequence[Answered], seeds: int
) -> list[Answered]:
    """The SFT model that each seed started from; of base and SFT models themselves the first, and their own."""
    if setting is None:
        return list(sft) if seeds == len(sft) else [sft[0]] * seeds
    order = [start.reference for start in starts]
    return [sft[order.index(str(policy.reference))] for policy in setting.policies]


def _labels(gathered: Gathered, along: str, several: bool) -> tuple[tuple[str, ...], ...]:
    curves = sorted(gathered.curves(along), key=lambda curve: list(gathered.bases).index(curve[0].base))
    return tuple(tuple(setting.label(base=several) for setting in curve) for curve in curves)


def _point(
    label: str,
    about: Mapping[str, Any],
    seeds: Sequence[Answered],
    references: Sequence[Answered],
    largest: Answered,
    measurer: Measurer,
    weights: int | None,
) -> Point:
    per_prompt: dict[str, tuple[PerPrompt, ...]] = {
        "judge": tuple(made.judge for made in seeds),
        "proxy": tuple(made.proxy for made in seeds if made.proxy is not None),
        "kl": tuple(made.kl for made in seeds if made.kl is not None),
        "tokens": tuple(np.asarray(made.generated.lengths, dtype=np.float64) for made in seeds),
        "wins_sft": tuple(measurer.won(m.judge, own.judge) for m, own in zip(seeds, references, strict=True)),
        "wins_largest": tuple(measurer.won(made.judge, largest.judge) for made in seeds),
    }
    losses = tuple(made.generated.text_loss for made in seeds if made.generated.text_loss is not None)
    taught = tuple(made.benchmark for made in seeds if made.benchmark is not None)
    return Point(
        label=label,
        parameters=weights,
        per_prompt={name: arrays for name, arrays in per_prompt.items() if arrays},
        text_loss=losses,
        benchmark=taught,
        **about,
    )

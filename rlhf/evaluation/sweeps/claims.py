"""What holds and what does not, in words: the questions that InstructGPT's comparisons answer, asked of one's own runs.

A claim holds where its 95 % interval lies wholly on its side, fails where it lies wholly on the other, and is open
where it holds both: many claims are tested, so a single one of them is wrong more often than one time in twenty.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from rlhf.evaluation.sweeps.points import Point, Value, difference, share, value_of_seeds
from rlhf.evaluation.sweeps.summary import Measured, at_equal_kl, by_size, compare_points, mean_kl, rl_fit


@dataclass(frozen=True)
class Claim:
    question: str
    holds: bool | None  # None: the numbers do not tell
    answer: str  # a sentence with the numbers

    def json(self) -> dict[str, Any]:
        return asdict(self)


def claims(measured: Measured, wanted_kl: Sequence[float] = ()) -> list[Claim]:
    """Every question that the measured points can answer, in the order of the paper's results."""
    asked: list[Callable[[Measured], list[Claim]]] = [
        _ppo_beats_sft,
        _small_beats_large,
        _small_beats_large_base,
        _overoptimised,
        lambda m: _beats_best_of_n(m, wanted_kl),
        _keeps,
        _ptx_wins_back,
        _ptx_costs,
        _kl_wins_back,
    ]
    return [claim for ask in asked for claim in ask(measured)]


def _side(found: Value, middle: float = 0.0) -> bool | None:
    if found.low > middle:
        return True
    return False if found.high < middle else None


def percent(found: Value) -> str:
    return f"{100 * found.mean:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _number(found: Value, digits: int = 3) -> str:
    return f"{found.mean:+.{digits}f} [{found.low:+.{digits}f}, {found.high:+.{digits}f}]"


def _over_seeds(point: Point) -> str:
    return f" over {point.seeds} seeds" if point.seeds > 1 else ""


def chosen(measured: Measured, base: str, method: str) -> Point | None:
    """The setting that stands for a method: figure 1's where there are several sizes, else the best by win rate."""
    shared = [point for point in by_size(measured).get(method, []) if point.base == base]
    if len(measured.bases) > 1 and shared:
        return shared[0]
    # Wins against one model, or without it scores; points of one size have either all of them or none.
    by = "wins_sft" if measured.find("sft", base) else "judge"
    return max(measured.find(method, base), key=lambda p: float(np.mean(p.per_prompt[by])), default=None)


def _ppo_beats_sft(measured: Measured) -> list[Claim]:
    found = []
    for base in measured.bases:
        for method in ("ppo", "ppo-ptx"):
            point = chosen(measured, base, method)
            if point is None or not measured.find("sft", base):
                continue
            rate = share(point.per_prompt["wins_sft"], measured.bootstrap)
            count = len(measured.find(method, base))
            best = f", the best of {count} settings" if len(measured.bases) == 1 and count > 1 else ""
            found.append(
                Claim(
                    f"Does {_name(method)} beat the SFT model{_of(measured, base)}?",
                    _side(rate, 0.5),
                    f"{point.label}{best} wins {percent(rate)} of prompts{_over_seeds(point)} by the "
                    f"{measured.judge} judge.",
                )
            )
    return found


def _name(method: str) -> str:
    return {"ppo": "PPO", "ppo-ptx": "PPO-ptx", "sft": "SFT"}.get(method, method)


def _of(measured: Measured, base: str) -> str:
    return f" ({base})" if len(measured.bases) > 1 else ""


def _against(measured: Measured, small: Point, large: Point, question: str) -> Claim:
    """Who has the better answer on the same prompts: wins of `small`, ties as half."""
    ours, theirs = small.per_prompt["judge"], large.per_prompt["judge"]
    wins = [np.mean([(a > b) + 0.5 * (a == b) for b in theirs], axis=0) for a in ours]
    rate = share(wins, measured.bootstrap)
    return Claim(question, _side(rate, 0.5), f"{small.label} wins {percent(rate)} of prompts against {large.label}.")


def _small_beats_large(measured: Measured) -> list[Claim]:
    """The paper's first result: 1.3B InstructGPT is preferred to 175B GPT-3; here also to the larger SFT model."""
    found = []
    for small, large in zip(measured.bases, measured.bases[1:], strict=False):
        for method in ("ppo", "ppo-ptx"):
            point = chosen(measured, small, method)
            if point is not None and measured.find("sft", large):
                question = f"Does {_name(method)} of {small} beat the SFT model of {large}?"
                found.append(_against(measured, point, measured.sft(large), question))
    return found


def _small_beats_large_base(measured: Measured) -> list[Claim]:
    if len(measured.bases) < 2:
        return []
    small, large = measured.bases[0], measured.bases[-1]
    found = []
    for method in ("base-few-shot", "base"):
        others = measured.find(method, large)
        point = chosen(measured, small, "ppo-ptx") or chosen(measured, small, "ppo")
        if others and point is not None:
            shown = "the prompted base model" if method == "base-few-shot" else "the base model"
            question = f"Does the small {_name(point.method)} ({small}) beat {shown} of {large}?"
            found.append(_against(measured, point, others[0], question))
    return found


def _overoptimised(measured: Measured) -> list[Claim]:
    """Gao et al. 2022: the judge's score peaks and falls while the reward model's goes on rising."""
    found: list[Claim] = []
    for labels in measured.kl_curves if measured.independent else ():
        points = sorted((measured.point(label) for label in labels), key=mean_kl)
        furthest = points[-1]
        best = max(points, key=lambda p: float(np.mean(p.per_prompt["judge"])))
        proxy = compare_points(measured, furthest, best, "proxy")
        lost = compare_points(measured, furthest, best)
        if len(points) < 3 or lost is None or proxy is None:
            continue
        fit = rl_fit(measured, labels, "judge") if measured.find("sft", furthest.base) else None
        at = ""
        if fit is not None and fit.peak_kl is not None:
            bounds = "" if fit.peak_kl_ci is None else f" [{fit.peak_kl_ci[0]:.2g}, {fit.peak_kl_ci[1]:.2g}]"
            at = f" The fitted curve peaks at {fit.peak_kl:.2g} nats{bounds}."
        holds = best is not furthest and lost.high < 0 < proxy.low
        score = f"The {measured.judge} score is best"
        if best is furthest:
            answer = f"{score} where the policy went furthest, {furthest.label}, at {mean_kl(furthest):.2f} nats."
        else:
            answer = (
                f"{score} with {best.label} (KL {mean_kl(best):.2f} nats); at {mean_kl(furthest):.2f} nats, "
                f"{furthest.label}, it differs by {_number(lost)}, the reward-model score by {_number(proxy, 2)}.{at}"
            )
        found.append(
            Claim(
                f"Is the reward model over-optimised by {_name(points[0].method)}{_of(measured, points[0].base)}?",
                True if holds else (False if best is furthest else None),
                answer,
            )
        )
    return found


def _beats_best_of_n(measured: Measured, wanted_kl: Sequence[float]) -> list[Claim]:
    found = []
    for base in measured.bases:
        rows = [row for row in at_equal_kl(measured, base, wanted_kl) if row["over_best_of_n"]]
        for name in dict.fromkeys(name for row in rows for name in row["over_best_of_n"]):
            gaps = [(row["kl"], row["over_best_of_n"][name]) for row in rows if name in row["over_best_of_n"]]
            above = [kl for kl, gap in gaps if gap["ci"][0] > 0]
            below = [kl for kl, gap in gaps if gap["ci"][1] < 0]
            shown = "; ".join(
                f"{gap['mean']:+.3f} [{gap['ci'][0]:+.3f}, {gap['ci'][1]:+.3f}] at {kl:g} nats" for kl, gap in gaps
            )
            found.append(
                Claim(
                    f"Does {_name(name)} beat best-of-n at equal KL{_of(measured, base)}?",
                    True if len(above) == len(gaps) else (False if len(below) == len(gaps) else None),
                    f"{measured.judge.capitalize()} score over best-of-n's: {shown}.",
                )
            )
    return found


class _Taught:
    """What is left of pretraining: accuracy on held-out tasks where that was measured, else loss on held-out text."""

    def __init__(self, measured: Measured) -> None:
        self._measured = measured
        self._tasks = any(point.benchmark for point in measured.points)
        self.name = "held-out task accuracy" if self._tasks else "loss on held-out text"

    def of(self, point: Point) -> float | None:
        """Larger is better."""
        if self._tasks:
            return float(np.mean(point.benchmark)) if point.benchmark else None
        return -float(np.mean(point.text_loss)) if point.text_loss else None

    def show(self, point: Point) -> str:
        found = self.of(point)
        assert found is not None, f"{point.label} was measured"
        return f"{100 * found:.1f} %" if self._tasks else f"{-found:.3f} nats"

    def most(self, points: Sequence[Point]) -> Point:
        return max(points, key=lambda point: -np.inf if (found := self.of(point)) is None else found)

    def more(self, one: Point, other: Point) -> bool | None:
        """Whether `one` has kept more; None where the interval of the difference holds 0, or a seed each gives none."""
        if self._tasks:
            assert self._measured.items is not None, "there is a benchmark"
            return _side(difference(one.benchmark, other.benchmark, self._measured.items))
        if min(len(one.text_loss), len(other.text_loss)) < 2:
            return None
        ours, theirs = value_of_seeds(one.text_loss), value_of_seeds(other.text_loss)
        half = float(np.hypot(ours.high - ours.mean, theirs.high - theirs.mean))
        gain = theirs.mean - ours.mean
        return _side(Value(gain, gain - half, gain + half, ours.seeds))


def _keeps(measured: Measured) -> list[Claim]:
    """The paper's alignment tax: what fine-tuning costs of what pretraining had taught."""
    found = []
    taught = _Taught(measured)
    for base in measured.bases:
        start, sft = measured.find("base", base)[:1], measured.find("sft", base)[:1]
        for method in ("ppo", "ppo-ptx"):
            point = chosen(measured, base, method)
            if point is None or None in map(taught.of, (*start, *sft, point)) or not start:
                continue
            less = taught.more(start[0], point)
            between = "".join(f" and {taught.show(one)} for the SFT model" for one in sft)
            found.append(
                Claim(
                    f"Does {_name(method)} keep what pretraining had taught, by {taught.name}{_of(measured, base)}?",
                    None if less is None else not less,
                    f"The {taught.name} is {taught.show(point)} with {point.label}; it is {taught.show(start[0])} for "
                    f"the base model{between}.",
                )
            )
    return found


def _ptx_lines(measured: Measured, taught: _Taught) -> list[tuple[Point, Point, Point]]:
    """Of each size whose ptx coefficient was swept from 0: base, PPO without ptx, and with what keeps most."""
    found = []
    for labels in measured.ptx_curves:
        without, *others = (measured.point(label) for label in labels)
        bases = measured.find("base", without.base)
        if bases and not without.ptx_coef and None not in map(taught.of, (bases[0], without, *others)):
            found.append((bases[0], without, taught.most(others)))
    return found


def _ptx_wins_back(measured: Measured) -> list[Claim]:
    found = []
    taught = _Taught(measured)
    for base, without, best in _ptx_lines(measured, taught):
        start, tax, left = (float(taught.of(point) or 0.0) for point in (base, without, best))
        share = f": {100 * (left - tax) / (start - tax):.0f} % of what was lost" if start > tax else ""
        found.append(
            Claim(
                f"Does ptx win back what pretraining had taught, by {taught.name}{_of(measured, base.base)}?",
                taught.more(best, without),
                f"The {taught.name} is {taught.show(base)} for the base model, {taught.show(without)} after "
                f"{without.label} and {taught.show(best)} with {best.label}{share}.",
            )
        )
    return found


def _ptx_costs(measured: Measured) -> list[Claim]:
    found = []
    for _, without, best in _ptx_lines(measured, _Taught(measured)):
        gap = compare_points(measured, best, without)
        assert gap is not None, "the judge scores every point"
        found.append(
            Claim(
                f"Does that cost any of the {measured.judge} score{_of(measured, best.base)}?",
                _side(Value(-gap.mean, -gap.high, -gap.low, gap.seeds)),
                f"{best.label} less {without.label}: {_number(gap)}.",
            )
        )
    return found


def _kl_wins_back(measured: Measured) -> list[Claim]:
    """The paper's figure 34: no KL coefficient does what ptx does."""
    found = []
    taught = _Taught(measured)
    for labels in measured.kl_curves:
        points = [measured.point(label) for label in labels]
        base, sft = (measured.find(method, points[0].base)[:1] for method in ("base", "sft"))
        if points[0].method != "ppo" or not base or None in map(taught.of, (*points, *base, *sft)):
            continue
        best = taught.most(points)
        short = taught.more(base[0], best)
        found.append(
            Claim(
                f"Does raising the KL coefficient win it back{_of(measured, points[0].base)}?",
                None if short is None else not short,
                f"The best {taught.name} of {len(points)} coefficients is {taught.show(best)}, with {best.label}; "
                f"{''.join(f'the SFT model has {taught.show(one)}, ' for one in sft)}the base model "
                f"{taught.show(base[0])}.",
            )
        )
    return found


def statement(measured: Measured, found: Sequence[Claim]) -> str:
    """The answer in one sentence: the first claim, and how many of the others hold."""
    if not found:
        return "Nothing was trained that could be compared."
    held, failed = sum(claim.holds is True for claim in found), sum(claim.holds is False for claim in found)
    rest = f"; of {len(found)} questions {held} are answered yes, {failed} no" if len(found) > 1 else ""
    return f"{found[0].answer.rstrip('.')}{rest}."

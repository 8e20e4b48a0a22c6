"""A comparison in words: the table on the terminal, the statement, what to take care of."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.evaluation.answering.answers import KL_FROM
from rlhf.evaluation.comparison import benchmark_tables
from rlhf.evaluation.judges.judge import judge_title
from rlhf.evaluation.tasks.text_metrics import TITLES


def against_references(report: Mapping[str, Any]) -> dict[str, int]:
    """The text metrics that were measured, and over how many prompts; {} where none was asked for."""
    measured = next(iter(report["candidates"].values())).get("metrics", {})
    return {name: found["n"] for name, found in measured.items()}


def ordered(report: Mapping[str, Any]) -> list[str]:
    """Candidates as tables show them: base, the baseline, then the others in the order they were named."""
    baseline = report["baseline"]
    first = [name for name in dict.fromkeys(("base", "base-few-shot", "sft", baseline)) if name in report["candidates"]]
    return first + [name for name in report["candidates"] if name not in first]


def scoring(report: Mapping[str, Any]) -> list[str]:
    """The judges that give scores; the others compare."""
    return [judge for judge, unit in report["units"].items() if unit is not None]


def _rate(candidate: Mapping[str, Any]) -> float:
    """For finding the best; without a verdict it is none."""
    return -1.0 if candidate["win_rate"] is None else candidate["win_rate"]


def percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"


def interval(ci: Sequence[float]) -> str:
    return f"{100 * ci[0]:.0f} to {100 * ci[1]:.0f} %"


def statement(report: Mapping[str, Any]) -> str:
    """The answer in one sentence: who beats whom, how surely, by which judge."""
    baseline, judge = report["baseline"], judge_title(report["judge"])
    others = [name for name in ordered(report) if name != baseline]
    if not others:
        return f"There is only {baseline}, so nothing is compared."
    # The last stage of the chain is what a reader asks about first; in a sweep, the job that does best.
    trained = [name for name in others if name not in ("base", "base-few-shot")] or others
    lead = "ppo" if "ppo" in others else max(trained, key=lambda name: _rate(report["candidates"][name]))
    rest = [name for name in others if name != lead]
    named = [lead, *(name for name in rest if name == "base" or len(rest) <= 2)]
    clauses = [_clause(report, name) for name in named]
    unnamed = [name for name in rest if name not in named]
    if unnamed:
        best = max(unnamed, key=lambda name: _rate(report["candidates"][name]))
        clauses.append(f"of the {len(unnamed)} others {best} does best: {_clause(report, best)}")
    return f"By the {judge} judge on {report['prompts']} held-out prompts, {'; '.join(clauses)}."


def _clause(report: Mapping[str, Any], name: str) -> str:
    baseline, candidate = report["baseline"], report["candidates"][name]
    if candidate["win_rate"] is None:
        return f"there is no verdict on {name} against {baseline}"
    rate, (low, high) = candidate["win_rate"], candidate["win_rate_ci"]
    if low > 0.5:
        return f"{name} beats {baseline} with a win rate of {percent(rate)} (95 % interval {interval([low, high])})"
    if high < 0.5:
        turned = interval([1 - high, 1 - low])
        return f"{baseline} beats {name} with a win rate of {percent(1 - rate)} (95 % interval {turned})"
    return f"{name} and {baseline} cannot be told apart ({percent(rate)}, 95 % interval {interval([low, high])})"


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What a careful reader should know beside the statement; a sentence each."""
    found = []
    candidates, baseline = report["candidates"], report["baseline"]
    for name in ordered(report):
        candidate = candidates[name]
        if name == baseline:
            continue
        judges = candidate["judges"]
        if "gold" in judges and "reward_model" in judges:
            gold, proxy = judges["gold"]["win_rate_ci"], judges["reward_model"]["win_rate_ci"]
            if proxy[0] > 0.5 and gold[1] < 0.5:
                # Nothing was optimised against it in the base model, whose answers are merely unlike those it ranked.
                unlike = "it misjudges answers unlike those it was trained on"
                why = unlike if name in ("base", "base-few-shot") else "it is over-optimised"
                found.append(f"The reward model prefers {name} to {baseline} and the gold judge does not: {why}.")
        a_model = candidate.get("method") not in ("outputs", "base-few-shot")
        if candidate["kl"] is None and KL_FROM in candidates and a_model:
            found.append(f"{name} has another tokenizer than {KL_FROM}, so its KL from {KL_FROM} is not defined.")
        tokens, usual = candidate["mean_tokens"], candidates[baseline]["mean_tokens"]
        wins = candidate["win_rate_ci"] is not None and candidate["win_rate_ci"][0] > 0.5
        if wins and usual > 0 and tokens > 1.5 * usual:
            found.append(
                f"{name} answers {tokens / usual:.1f} times as long as {baseline}; a judge that likes length would "
                "favour it."
            )
        if candidate["fraction_ended"] < 0.5 <= candidates[baseline]["fraction_ended"]:
            found.append(
                f"Only {percent(candidate['fraction_ended'])} of {name}'s answers end by themselves; the others are "
                "cut at rollout.max_new_tokens."
            )
    for name, count in report["prompts_lacking"].items():
        if count:
            found.append(f"{count} held-out prompts are left out for all: the file of {name} has no answer to them.")
    return found + _remarks_on_comparing(report)


def _remarks_on_comparing(report: Mapping[str, Any]) -> list[str]:
    """What to know of the judges that compare: where they gave no verdict, and whether a place decides."""
    found = []
    for judge in report["units"]:
        if judge in scoring(report):
            continue
        said = {n: report["candidates"][n]["judges"][judge] for n in ordered(report) if n != report["baseline"]}
        missing = {name: report["prompts"] - one["n"] for name, one in said.items() if one["n"] < report["prompts"]}
        if missing:
            counts = ", ".join(f"{count} for {name}" for name, count in missing.items())
            found.append(
                f"The {judge_title(judge)} judge gave answers that cannot be read, and so no verdict on some of the "
                f"{report['prompts']} prompts: {counts}; they are in none of its rates."
            )
        intervals = {name: one["position_bias_ci"] or [0.0, 1.0] for name, one in said.items()}
        biased = [name for name, (low, high) in intervals.items() if not low <= 0.5 <= high]
        if biased:
            shares = ", ".join(f"{percent(said[name]['position_bias'])} for {name}" for name in biased)
            found.append(
                f"The {judge_title(judge)} judge chooses by place: of its answers that name a winner, those for the "
                f"response shown first are {shares}. Both orders are asked, and what differs between them is a tie."
            )
    return found


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def _accuracy(measured: Mapping[str, Any] | None) -> float | None:
    return None if measured is None else measured["accuracy"]


def _rate_and_interval(judged: Mapping[str, Any]) -> str:
    if judged["win_rate"] is None:
        return "-"
    low, high = judged["win_rate_ci"]
    return f"{100 * judged['win_rate']:5.1f} % [{100 * low:5.1f}, {100 * high:5.1f}]"


def text_table(report: Mapping[str, Any]) -> str:
    """The comparison as aligned lines for a terminal."""
    scored = scoring(report)
    units = (report["units"][judge].partition(" (")[0] for judge in scored)
    comparing = [judge for judge in report["units"] if judge not in scored and judge != report["judge"]]
    rates = (f"win rate ({judge_title(judge)}) [95 %]" for judge in (report["judge"], *comparing))
    header = ["candidate", *rates, *units, "KL from sft", "tokens"]
    has_text = any(candidate["text_loss"] is not None for candidate in report["candidates"].values())
    header += ["text loss"] if has_text else []
    own = {name: benchmark_tables.own_benchmark(candidate) for name, candidate in report["candidates"].items()}
    has_benchmark = any(own.values())
    header += ["benchmark"] if has_benchmark else []
    header += [TITLES[metric] for metric in against_references(report)]
    rows = [header]
    for name in ordered(report):
        candidate = report["candidates"][name]
        rows.append(
            [
                name,
                *(
                    "baseline" if name == report["baseline"] else _rate_and_interval(candidate["judges"][judge])
                    for judge in (report["judge"], *comparing)
                ),
                *(f"{candidate['judges'][judge]['score']:z.3f}" for judge in scored),
                _or_dash(candidate["kl"], "z.2f"),
                f"{candidate['mean_tokens']:.1f}",
                *([_or_dash(candidate["text_loss"], ".3f")] if has_text else []),
                *([_or_dash(_accuracy(own[name]), ".1%")] if has_benchmark else []),
                *(f"{found['value']:.1f}" for found in candidate.get("metrics", {}).values()),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)

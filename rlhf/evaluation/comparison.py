"""From every candidate's answers and scores to the numbers and the sentences of a comparison. No model is touched here.

`summarise` returns what report.json holds; its keys are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from rlhf.evaluation.text_metrics import TITLES
from rlhf.evaluation.winrate import Bootstrap, by_task, verdicts

KL_FROM = "sft"


@dataclass(frozen=True)
class Answers:
    """One candidate's answers to the shared prompts, in their order."""

    path: str  # of its model
    texts: list[str]
    tokens: list[int]  # of each response, the end token included
    ended: list[bool]  # False: cut at rollout.max_new_tokens
    scores: dict[str, list[float]]  # by judge
    kl: list[float] | None  # log p(response) under the candidate minus under SFT, nats; None: another tokenizer
    text_loss: float | None  # on held-out documents, nats a token; None: no documents, or another tokenizer


def summarise(
    answers: Mapping[str, Answers],
    tasks: Sequence[str],
    *,
    baseline: str,
    judges: Mapping[str, str],
    tie_margin: float,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, Any]:
    """The comparison as JSON values: win rates against `baseline`, scores, KL and lengths, overall and by task.

    tasks:  the family of each prompt, "" where it has none.
    judges: name -> unit of its scores; the first one decides `win_rate`.
    """
    names = list(judges)
    groups = by_task(tasks)
    everything = Bootstrap(len(tasks), samples=bootstrap_samples, seed=seed)
    task_bootstraps = {
        task: Bootstrap(len(rows), samples=bootstrap_samples, seed=seed) for task, rows in groups.items()
    }
    reference = answers[baseline]
    candidates: dict[str, Any] = {}
    for name, answer in answers.items():
        measured = _measurements(answer, reference, names, tie_margin)
        candidates[name] = {
            "path": answer.path,
            "text_loss": answer.text_loss,
            **_summary(measured, everything, names),
        }
        candidates[name]["tasks"] = {
            task: _summary({key: values[rows] for key, values in measured.items()}, task_bootstraps[task], names)
            for task, rows in groups.items()
        }
    report: dict[str, Any] = {
        "baseline": baseline,
        "judge": names[0],
        "units": dict(judges),
        "prompts": len(tasks),
        "tie_margin": tie_margin,
        "bootstrap_samples": bootstrap_samples,
        "candidates": candidates,
    }
    report["statement"] = statement(report)
    report["remarks"] = remarks(report)
    return report


def _measurements(answer: Answers, reference: Answers, judges: Sequence[str], tie_margin: float) -> dict[str, Any]:
    """One value a prompt for everything that is averaged."""
    measured: dict[str, Any] = {
        "mean_tokens": np.asarray(answer.tokens, dtype=np.float64),
        "fraction_ended": np.asarray(answer.ended, dtype=np.float64),
    }
    if answer.kl is not None:
        measured["kl"] = np.asarray(answer.kl, dtype=np.float64)
    for judge in judges:
        scores = np.asarray(answer.scores[judge], dtype=np.float64)
        measured[f"{judge}/score"] = scores
        measured[f"{judge}/wins"] = verdicts(scores, reference.scores[judge], tie_margin=tie_margin)
    return measured


def _summary(measured: Mapping[str, Any], bootstrap: Bootstrap, judges: Sequence[str]) -> dict[str, Any]:
    estimates = {key: bootstrap.estimate(values) for key, values in measured.items()}
    by_judge = {
        judge: {
            "win_rate": estimates[f"{judge}/wins"].mean,
            "win_rate_ci": estimates[f"{judge}/wins"].ci,
            "score": estimates[f"{judge}/score"].mean,
            "score_ci": estimates[f"{judge}/score"].ci,
            "ties": float((measured[f"{judge}/wins"] == 0.5).mean()),
        }
        for judge in judges
    }
    first = by_judge[judges[0]]
    gold, kl = by_judge.get("gold"), estimates.get("kl")
    return {
        "win_rate": first["win_rate"],
        "win_rate_ci": first["win_rate_ci"],
        "gold_score": gold["score"] if gold else None,
        "gold_score_ci": gold["score_ci"] if gold else None,
        "kl": kl.mean if kl else None,
        "kl_ci": kl.ci if kl else None,
        "mean_tokens": estimates["mean_tokens"].mean,
        "mean_tokens_ci": estimates["mean_tokens"].ci,
        "fraction_ended": estimates["fraction_ended"].mean,
        "prompts": bootstrap.prompts,
        "judges": by_judge,
    }


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers of a comparison that belong in the manifest, as compare/<candidate>_<quantity>."""
    flat: dict[str, float] = {}
    for name, candidate in report["candidates"].items():
        if name != report["baseline"]:
            flat[f"compare/{name}_win_rate"] = candidate["win_rate"]
            flat[f"compare/{name}_win_rate_low"] = candidate["win_rate_ci"][0]
            flat[f"compare/{name}_win_rate_high"] = candidate["win_rate_ci"][1]
        for key in ("gold_score", "kl", "text_loss", "mean_tokens"):
            if candidate[key] is not None:
                flat[f"compare/{name}_{key}"] = candidate[key]
        for key, found in candidate.get("metrics", {}).items():
            flat[f"compare/{name}_{key}"] = found["value"]
    return flat


def against_references(report: Mapping[str, Any]) -> dict[str, int]:
    """The text metrics that were measured, and over how many prompts; {} where none was asked for."""
    measured = next(iter(report["candidates"].values())).get("metrics", {})
    return {name: found["n"] for name, found in measured.items()}


def ordered(report: Mapping[str, Any]) -> list[str]:
    """Candidates as tables show them: base, the baseline, then the others in the order they were named."""
    baseline = report["baseline"]
    first = [name for name in dict.fromkeys(("base", "sft", baseline)) if name in report["candidates"]]
    return first + [name for name in report["candidates"] if name not in first]


def percent(rate: float) -> str:
    return f"{100 * rate:.0f} %"


def interval(ci: Sequence[float]) -> str:
    return f"{100 * ci[0]:.0f} to {100 * ci[1]:.0f} %"


def judge_title(judge: str) -> str:
    return judge.replace("_", " ")


def statement(report: Mapping[str, Any]) -> str:
    """The answer in one sentence: who beats whom, how surely, by which judge."""
    baseline, judge = report["baseline"], judge_title(report["judge"])
    others = [name for name in ordered(report) if name != baseline]
    if not others:
        return f"There is only {baseline}, so nothing is compared."
    # The last stage of the chain is what a reader asks about first; in a sweep, the job that does best.
    trained = [name for name in others if name != "base"] or others
    lead = "ppo" if "ppo" in others else max(trained, key=lambda name: report["candidates"][name]["win_rate"])
    rest = [name for name in others if name != lead]
    named = [lead, *(name for name in rest if name == "base" or len(rest) <= 2)]
    clauses = [_clause(report, name) for name in named]
    unnamed = [name for name in rest if name not in named]
    if unnamed:
        best = max(unnamed, key=lambda name: report["candidates"][name]["win_rate"])
        clauses.append(f"of the {len(unnamed)} others {best} does best: {_clause(report, best)}")
    return f"By the {judge} judge on {report['prompts']} held-out prompts, {'; '.join(clauses)}."


def _clause(report: Mapping[str, Any], name: str) -> str:
    baseline, candidate = report["baseline"], report["candidates"][name]
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
                why = unlike if name == "base" else "it is over-optimised"
                found.append(f"The reward model prefers {name} to {baseline} and the gold judge does not: {why}.")
        if candidate["kl"] is None and KL_FROM in candidates:
            found.append(f"{name} has another tokenizer than {KL_FROM}, so its KL from {KL_FROM} is not defined.")
        tokens, usual = candidate["mean_tokens"], candidates[baseline]["mean_tokens"]
        if candidate["win_rate_ci"][0] > 0.5 and usual > 0 and tokens > 1.5 * usual:
            found.append(
                f"{name} answers {tokens / usual:.1f} times as long as {baseline}; a judge that likes length would "
                "favour it."
            )
        if candidate["fraction_ended"] < 0.5 <= candidates[baseline]["fraction_ended"]:
            found.append(
                f"Only {percent(candidate['fraction_ended'])} of {name}'s answers end by themselves; the others are "
                "cut at rollout.max_new_tokens."
            )
    return found


def _or_dash(value: float | None, form: str) -> str:
    return "-" if value is None else format(value, form)


def text_table(report: Mapping[str, Any]) -> str:
    """The comparison as aligned lines for a terminal."""
    judge = judge_title(report["judge"])
    units = (unit.partition(" (")[0] for unit in report["units"].values())
    header = ["candidate", f"win rate ({judge}) [95 %]", *units, "KL from sft", "tokens"]
    has_text = any(candidate["text_loss"] is not None for candidate in report["candidates"].values())
    header += ["text loss"] if has_text else []
    header += [TITLES[metric] for metric in against_references(report)]
    rows = [header]
    for name in ordered(report):
        candidate = report["candidates"][name]
        low, high = candidate["win_rate_ci"]
        rate = f"{100 * candidate['win_rate']:5.1f} % [{100 * low:5.1f}, {100 * high:5.1f}]"
        rows.append(
            [
                name,
                "baseline" if name == report["baseline"] else rate,
                *(f"{scores['score']:z.3f}" for scores in candidate["judges"].values()),
                _or_dash(candidate["kl"], "z.2f"),
                f"{candidate['mean_tokens']:.1f}",
                *([_or_dash(candidate["text_loss"], ".3f")] if has_text else []),
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

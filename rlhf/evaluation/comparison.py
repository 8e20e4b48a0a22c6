"""From every candidate's answers and scores to the numbers and the sentences of a comparison. No model is touched here.

`summarise` returns what report.json holds; its keys are stable.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from rlhf.evaluation import benchmark_tables, judging
from rlhf.evaluation.candidate_points import measured_of
from rlhf.evaluation.judges import Verdicts
from rlhf.evaluation.sweeps.claims import claims
from rlhf.evaluation.text_metrics import TITLES
from rlhf.evaluation.winrate import Bootstrap, by_task, verdicts

KL_FROM = "sft"


@dataclass(frozen=True)
class Answers:
    """One candidate's answers to the shared prompts, in their order."""

    path: str  # of its model, or of its file of outputs
    texts: list[str]
    tokens: list[int]  # of each response, the end token included
    ended: list[bool]  # False: cut at rollout.max_new_tokens
    scores: dict[str, list[float]]  # by judge, of those that score
    kl: list[float] | None  # log p(response) under the candidate minus under SFT, nats; None: not defined
    text_loss: float | None  # on held-out documents, nats a token; None: no documents, or another tokenizer
    benchmarks: dict[str, Any] = field(default_factory=dict)  # by name, as benchmarks.measure gives them
    right: tuple[float, ...] = ()  # of the held-out tasks' items, 1 for one that it gets right, else 0
    about: Mapping[str, Any] = field(default_factory=dict)  # what else the report says of it: `candidates.describe`
    verdicts: dict[str, Verdicts] = field(default_factory=dict)  # by judge, of those that compare


def summarise(
    answers: Mapping[str, Answers],
    tasks: Sequence[str],
    *,
    baseline: str,
    judges: Mapping[str, str | None],
    tie_margin: float,
    bootstrap_samples: int,
    seed: int,
    lacking: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """The comparison as JSON values: win rates against `baseline`, scores, KL and lengths, overall and by task.

    tasks:  the family of each prompt, "" where it has none.
    judges: name -> unit of its scores, None for one that compares and gives none; the first one decides `win_rate`.
    lacking: held-out prompts that each file of outputs has no answer to, so that nobody is judged on them.
    """
    names = list(judges)
    groups = by_task(tasks)
    everything = Bootstrap(len(tasks), samples=bootstrap_samples, seed=seed)
    task_bootstraps = {
        task: Bootstrap(len(rows), samples=bootstrap_samples, seed=seed) for task, rows in groups.items()
    }
    reference = answers[baseline]
    candidates: dict[str, Any] = {}
    wins: dict[str, dict[str, Any]] = {judge: {} for judge in names}
    for name, answer in answers.items():
        measured = _measurements(answer, reference, tie_margin)
        compared = {judge: _comparisons(said) for judge, said in answer.verdicts.items()}
        candidates[name] = {
            "path": answer.path,
            **answer.about,
            "text_loss": answer.text_loss,
            "benchmarks": answer.benchmarks,
            **_summary(measured, compared, everything, names),
        }
        for judge in names if name != baseline else ():
            wins[judge][name] = compared[judge]["wins"] if judge in compared else measured[f"{judge}/wins"]
        if name != baseline:
            candidates[name] |= judging.at_equal_length(wins[names[0]][name], answer.texts, reference.texts)
        candidates[name]["tasks"] = {
            task: _summary(
                {key: values[rows] for key, values in measured.items()},
                {judge: {key: values[rows] for key, values in found.items()} for judge, found in compared.items()},
                task_bootstraps[task],
                names,
            )
            for task, rows in groups.items()
        }
    report: dict[str, Any] = {
        "baseline": baseline,
        "judge": names[0],
        "units": dict(judges),
        "prompts": len(tasks),
        "prompts_lacking": dict(lacking or {}),
        "tie_margin": tie_margin,
        "bootstrap_samples": bootstrap_samples,
        "candidates": candidates,
        "agreement": judging.agreement(wins, everything) if wins[names[0]] else {},
        "ratings": judging.strengths(
            None if judges[names[0]] is None else {name: answer.scores[names[0]] for name, answer in answers.items()},
            wins[names[0]],
            baseline=baseline,
            tie_margin=tie_margin,
            bootstrap=everything,
        ),
    }
    report["claims"] = []
    scored = next((judge for judge, unit in judges.items() if unit is not None), None)
    if scored is not None:
        unit = judges[scored] or ""
        points = measured_of(
            answers, scored, unit, tie_margin=tie_margin, bootstrap_samples=bootstrap_samples, seed=seed
        )
        report["claims"] = [claim.json() for claim in claims(points)] if points is not None else []
    report["statement"] = statement(report)
    report["remarks"] = remarks(report)
    return report


def _measurements(answer: Answers, reference: Answers, tie_margin: float) -> dict[str, Any]:
    """One value a prompt for everything that is averaged."""
    measured: dict[str, Any] = {
        "mean_tokens": np.asarray(answer.tokens, dtype=np.float64),
        "fraction_ended": np.asarray(answer.ended, dtype=np.float64),
    }
    if answer.kl is not None:
        measured["kl"] = np.asarray(answer.kl, dtype=np.float64)
    for judge, given in answer.scores.items():
        scores = np.asarray(given, dtype=np.float64)
        measured[f"{judge}/score"] = scores
        measured[f"{judge}/wins"] = verdicts(scores, reference.scores[judge], tie_margin=tie_margin)
    return measured


def _comparisons(verdicts: Verdicts) -> dict[str, Any]:
    """The fields of `verdicts` as arrays."""
    return {key: np.asarray(values, dtype=np.float64) for key, values in vars(verdicts).items()}


def _compared(found: Mapping[str, Any], bootstrap: Bootstrap) -> dict[str, Any]:
    """What a judge that compares says of a candidate; prompts without a verdict are in no rate."""
    wins, there = found["wins"], np.isfinite(found["wins"])
    rate = bootstrap.ratio(np.where(there, wins, 0.0), there) if there.any() else None
    bias = bootstrap.ratio(found["first"], found["decided"]) if found["decided"].any() else None
    return {
        "win_rate": rate.mean if rate else None,
        "win_rate_ci": rate.ci if rate else None,
        "score": None,
        "score_ci": None,
        "ties": float((wins[there] == 0.5).mean()) if rate else None,
        "n": int(there.sum()),
        "inconsistent": int(found["inconsistent"].sum()),
        "identical": int(found["identical"].sum()),
        "parse_failures": int(found["failures"].sum()),
        "position_bias": bias.mean if bias else None,
        "position_bias_ci": bias.ci if bias else None,
    }


def _summary(
    measured: Mapping[str, Any],
    compared: Mapping[str, Mapping[str, Any]],
    bootstrap: Bootstrap,
    judges: Sequence[str],
) -> dict[str, Any]:
    estimates = {key: bootstrap.estimate(values) for key, values in measured.items()}
    by_judge = {
        judge: _compared(compared[judge], bootstrap)
        if judge in compared
        else {
            "win_rate": estimates[f"{judge}/wins"].mean,
            "win_rate_ci": estimates[f"{judge}/wins"].ci,
            "score": estimates[f"{judge}/score"].mean,
            "score_ci": estimates[f"{judge}/score"].ci,
            "ties": float((measured[f"{judge}/wins"] == 0.5).mean()),
            "n": bootstrap.prompts,
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
        if name != report["baseline"] and candidate["win_rate"] is not None:
            flat[f"compare/{name}_win_rate"] = candidate["win_rate"]
            flat[f"compare/{name}_win_rate_low"] = candidate["win_rate_ci"][0]
            flat[f"compare/{name}_win_rate_high"] = candidate["win_rate_ci"][1]
        for key in ("gold_score", "kl", "text_loss", "mean_tokens"):
            if candidate[key] is not None:
                flat[f"compare/{name}_{key}"] = candidate[key]
        flat |= {f"compare/{name}_{key}": value for key, value in benchmark_tables.metrics(candidate).items()}
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


def judge_title(judge: str) -> str:
    return judge.replace("_", " ")


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

"""A comparison's report as data: measurements, win rates, claims."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from rlhf.evaluation.comparison import benchmark_tables, by_judge
from rlhf.evaluation.comparison.answers import Answers
from rlhf.evaluation.comparison.points import measured_of
from rlhf.evaluation.comparison.text import remarks, statement
from rlhf.evaluation.judges.judge import Verdicts
from rlhf.evaluation.statistics.win_rates import Bootstrap, by_task, of_shares, verdicts
from rlhf.evaluation.sweeps.claims import claims


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
            candidates[name] |= by_judge.at_equal_length(wins[names[0]][name], answer.texts, reference.texts)
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
        "agreement": by_judge.agreement(wins, everything) if wins[names[0]] else {},
        "ratings": by_judge.strengths(
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
    rate = of_shares(rate, wins[there]) if rate is not None else None
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
    estimates |= {key: of_shares(estimates[key], measured[key]) for key in measured if key.endswith("/wins")}
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

"""The sweep's report.html: the answer, what holds and what does not, the table, the figures, samples, method."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.evaluation.pages.figures import Figure, styles
from rlhf.evaluation.pages.html import Made, colour_key, gallery, method_html, page, samples_html
from rlhf.evaluation.sweeps import claim_tables
from rlhf.evaluation.sweeps.marks import method_title
from rlhf.evaluation.sweeps.plots import DRAWN

DEFINITIONS = {
    "win rate": "mean over prompts of 1 where the judge scores the model's answer above that of the SFT model it "
    "started from, 0 where below, 0.5 for a tie",
    "95 % interval": "over the choice of prompts (percentile bootstrap, the same draws for every model) and, where "
    "there are two seeds or more, over seeds (Student's t of their means); both half-widths added in quadrature",
    "KL": "mean over prompts of log p(answer) under the policy minus under the SFT model it started from, both at "
    "temperature 1, summed over the answer's tokens, in nats; never clamped but where it is drawn below 0",
    "best-of-n": "of n samples of the SFT model the one that the reward model scores highest. Scores are the unbiased "
    "estimate from all samples of a prompt; KL is log n - (n - 1) / n",
    "fitted curves": "with d = sqrt(KL) and R the gain over the SFT model, R = d (alpha - beta log d) for PPO and "
    "R = d (alpha - beta d) for best-of-n (arXiv:2210.10760), by least squares; a peak beyond four times the largest "
    "measured KL is not reported, and its interval only where 95 % of the draws have one",
    "equal KL": "between two measured KLs scores are interpolated in a straight line over sqrt(KL); nothing is "
    "extrapolated",
    "held-out task accuracy": "share of multiple-choice items in the form of the pretraining text whose right option "
    "is the likeliest",
    "text loss": "mean negative log-likelihood of held-out plain documents, nats a token",
    "yes, no, open": "yes where the 95 % interval lies wholly on the question's side, no where wholly on the other, "
    "open where it holds both; of many questions one in twenty is answered wrongly by chance",
}


def render(
    report: Mapping[str, Any],
    drawn: Sequence[Figure],
    responses: Sequence[Mapping[str, Any]],
    made: Made,
    paths: Mapping[str, str],
    *,
    side_by_side: int,
) -> str:
    """The page. `responses` are rows as in responses.jsonl, with the same candidates in each."""
    looks = styles(DRAWN)
    colour = {point["label"]: looks[point["method"]].colour for point in report["points"]}
    colour |= {name: looks["best-of-n"].colour for name in _names(responses) if name not in colour}
    names = _names(responses)
    baseline = next((name for name in names if name.split()[-1] == "sft"), names[0] if names else "")
    parts = [
        "<h1>What the sweep found</h1>",
        f'<p class="answer">{escape(report["statement"])}</p>',
        *(f'<p class="remark">{escape(remark)}</p>' for remark in report["remarks"]),
        claim_tables.html(report["claims"]),
        "<h2>Every setting</h2>",
        _points(report, colour),
        gallery(drawn),
        _matched(report),
        _best_of_n(report),
        _fits(report),
        samples_html(names, baseline, responses, colour, side_by_side) if responses else "",
        method_html(made, DEFINITIONS, paths, f"{report['bootstrap_samples']} bootstrap samples."),
    ]
    return page(report["statement"], parts)


def _names(responses: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(responses[0]["candidates"]) if responses else []


def _table(header: Sequence[str], rows: Sequence[Sequence[str]], kind: str = "") -> str:
    """A table of HTML cells."""
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    shown = f' class="{kind}"' if kind else ""
    return f'<div class="scroll"><table{shown}><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def shown(found: Mapping[str, Any] | None, digits: int = 3, scale: float = 1.0, unit: str = "") -> str:
    """A value with its interval, as HTML."""
    if found is None:
        return "–"
    low, high = (scale * bound for bound in found["ci"])
    return f"{scale * found['mean']:z.{digits}f}{unit} <small>[{low:z.{digits}f}, {high:z.{digits}f}]</small>"


def _points(report: Mapping[str, Any], colour: Mapping[str, str]) -> str:
    columns = [
        (report["judge"] + "<br>score", "judge", 3, 1.0, ""),
        ("reward-model<br>score", "proxy", 3, 1.0, ""),
        ("win rate<br>against SFT", "wins_sft", 1, 100.0, " %"),
        (f"win rate against<br>SFT of {escape(report['largest'])}", "wins_largest", 1, 100.0, " %"),
        ("KL, nats", "kl", 2, 1.0, ""),
        ("tokens", "tokens", 1, 1.0, ""),
        ("held-out<br>tasks", "benchmark", 1, 100.0, " %"),
        ("text loss,<br>nats", "text_loss", 3, 1.0, ""),
    ]
    several = len({point["base"] for point in report["points"]}) > 1
    columns = [c for c in columns if c[1] != "wins_largest" or several]
    columns = [c for c in columns if any(point[c[1]] is not None for point in report["points"])]
    rows = []
    for point in report["points"]:
        cells = [colour_key(colour[point["label"]]) + escape(point["label"]), str(point["seeds"])]
        for _, name, digits, scale, unit in columns:
            itself = point["method"] == "sft" and name == "wins_sft"
            cells.append("<small>itself</small>" if itself else shown(point[name], digits, scale, unit))
        rows.append(cells)
    return _table(["model", "seeds", *(column[0] for column in columns)], rows) + (
        f'<p class="note">{report["prompts"]} held-out prompts, the same for all. In brackets: 95 % intervals over '
        "prompts and seeds.</p>"
    )


def _matched(report: Mapping[str, Any]) -> str:
    parts = []
    for base, rows in report["matched_kl"].items():
        names = list(dict.fromkeys(name for row in rows for name in row["curves"]))
        others = list(dict.fromkeys(name for row in rows for name in row["over_best_of_n"]))
        header = ["KL, nats", *(escape(method_title(name)) for name in names)]
        header += [f"{escape(method_title(name))} less<br>best-of-n" for name in others]
        cells = [
            [
                f"{row['kl']:g}",
                *(shown(row["curves"].get(name)) for name in names),
                *(shown(row["over_best_of_n"].get(name)) for name in others),
            ]
            for row in rows
        ]
        parts.append(f"<h3>{escape(base)}</h3>" + _table(header, cells))
    if not parts:
        return ""
    prompts = report["prompts_of_best_of_n"] or report["prompts"]
    return (
        f"<h2>{report['judge'].capitalize()} score at equal KL</h2>"
        + "".join(parts)
        + (f'<p class="note">On {prompts} prompts, those that best-of-n was drawn for.</p>')
    )


def _best_of_n(report: Mapping[str, Any]) -> str:
    parts = []
    for base, found in report["best_of_n"].items():
        rows = [
            [
                str(row["n"]),
                f"{row['kl']:.2f}",
                shown(row["judge"]),
                shown(row["proxy"]),
                shown(row["wins_sft"], 1, 100, " %"),
            ]
            for row in found
        ]
        header = ["n", "KL, nats", f"{report['judge']} score", "reward-model score", "win rate against SFT"]
        parts.append(f"<h3>{escape(base)}</h3>" + _table(header, rows))
    return "<h2>Best-of-n</h2>" + "".join(parts) if parts else ""


def _fits(report: Mapping[str, Any]) -> str:
    rows = []
    for fit in report["fits"]:
        curve = fit["curve"] if isinstance(fit["curve"], str) else f"{fit['curve'][0]} to {fit['curve'][-1]}"
        what = report["judge"] if fit["quantity"] == "judge" else "reward model"
        peak = "–" if fit["peak_kl"] is None else f"{fit['peak_kl']:.2f}"
        if fit["peak_kl_ci"] is not None:
            low, high = fit["peak_kl_ci"]
            peak += f" <small>[{low:.2f}, {high:.2f}]</small>"
        rows.append(
            [
                escape(curve),
                escape(what),
                *(shown({"mean": fit[name], "ci": fit[f"{name}_ci"]}) for name in ("alpha", "beta")),
                peak,
                f"{fit['r_squared']:.3f}",
            ]
        )
    header = ["curve", "score", "alpha", "beta", "peak, nats", "R²"]
    return "<h2>Fitted curves</h2>" + _table(header, rows) if rows else ""

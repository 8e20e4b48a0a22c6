"""The page of a comparison, report.html."""

from __future__ import annotations

import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from enum import Enum
from html import escape
from pathlib import Path
from typing import Any

from rlhf.config import Config
from rlhf.evaluation.comparison import benchmark_tables, judge_tables
from rlhf.evaluation.comparison.curves import Curves
from rlhf.evaluation.comparison.plots import figures
from rlhf.evaluation.comparison.text import against_references, ordered, scoring
from rlhf.evaluation.judges.judge import judge_title
from rlhf.evaluation.judges.llm import usage_line
from rlhf.evaluation.pages.figures import styles
from rlhf.evaluation.pages.html import Made, colour_key, gallery, method_html, page, samples_html
from rlhf.evaluation.sweeps import claim_tables
from rlhf.evaluation.tasks.text_metrics import TITLES

_PACKAGES = ("rlhf", "torch", "transformers", "trl", "peft", "deepspeed", "numpy")

DEFINITIONS = {
    "win rate": "mean over prompts of 1 where the judge scores the candidate's answer above the baseline's, 0 where "
    "below, 0.5 for a tie (scores no further apart than judge.tie_margin)",
    "win rate of an LLM judge": "the same by the verdict of a language model that sees both answers; a win or a loss "
    "where it says so with either shown first, else a tie",
    "position bias": "of an LLM judge's answers that name a winner, the share for the response shown first; 50 % is "
    "none",
    "at equal length": "the win rate that a logistic regression of the verdicts on the difference in length "
    "(characters, tanh of it over its standard deviation) predicts at no difference (arXiv:2404.04475, without "
    "instruction difficulty and penalty)",
    "Elo": "Bradley-Terry rating over the baseline from the verdicts on every two candidates, 400 points for odds of "
    "ten to one",
    "Cohen's kappa": "agreement of two judges on win, tie and loss beyond what chance gives, 0 to 1",
    "95 % interval": "percentile bootstrap over prompts, the same resampled prompts for every candidate; it covers the "
    "choice of prompts, not the luck of a training seed",
    "gold score": "the data source's own noise-free rubric, 0 (worst) to 1; models see at most noisy rankings made "
    "from it",
    "reward-model score": "the reward model's output for prompt and answer, on its own scale; PPO was trained on it",
    "KL from SFT": "mean over prompts of log p(answer) under the candidate minus under the SFT model, both at "
    "temperature 1, summed over the answer's tokens, in nats; it estimates KL(candidate || SFT) when answers are "
    "sampled at temperature 1. Of a best of n it is log n - (n - 1) / n, an upper bound on the KL from the model that "
    "was sampled (arXiv:2401.01879). A few-shot prompt and a file of outputs have none",
    "base-few-shot": "the base model after compare.few_shot training demonstrations as plain text, the same for all "
    "prompts; an answer ends where another turn begins",
    "sft-best-of-n": "of n samples of the SFT model the one that the reward model scores highest; the first sample is "
    "the answer of sft",
    "tokens": "mean length of an answer in the candidate's own tokens, end token included; of a file of outputs in the "
    "SFT model's or else the reward model's, without either in words (length_in in report.json)",
    "text loss": "mean negative log-likelihood of held-out plain documents, nats a token: what training on answers "
    "cost of what pretraining had taught (the paper's alignment tax; ppo.ptx works against it)",
    "benchmark": "share of multiple-choice items whose right option is the likeliest of all, by the sum of its tokens' "
    "log-probabilities after the context, without a chat template (acc of lm-eval); the sandbox's are in its corpus's "
    "prose; its 95 % interval is Wilson's",
    "BLEU, ROUGE, F1, exact match, accuracy": "of answers against the data's references, 0 to 100, on the prompts that "
    "have some, where compare.metrics asks for them",
    "ended": "share of answers that end by themselves, not cut at rollout.max_new_tokens",
}


def how_it_was_made(config: Config, fingerprint: Mapping[str, Any], folder: Path, parents: Mapping[str, Path]) -> Made:
    """The running command, its config, versions and inputs."""
    import yaml

    versions = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            versions[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # an optional one, or a checkout that was never installed
    return Made(
        command=shlex.join(["python", "-m", "rlhf", *sys.argv[1:]]),
        config=yaml.safe_dump(_plain(asdict(config)), sort_keys=False, allow_unicode=True),
        versions=versions,
        data=dict(fingerprint),
        folders={"report": str(folder), **{role: str(path) for role, path in parents.items()}},
    )


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_plain(item) for item in value]
    return value


def render(
    report: Mapping[str, Any],
    responses: Sequence[Mapping[str, Any]],
    curves: Curves,
    made: Made,
    *,
    side_by_side: int,
) -> str:
    """The page. `responses` are the rows of responses.jsonl; `side_by_side` of them are shown."""
    looks = styles(ordered(report))
    colours = {name: look.colour for name, look in looks.items()}
    parts = [
        "<h1>Comparison of language models</h1>",
        f'<p class="answer">{escape(report["statement"])}</p>',
        *(f'<p class="remark">{escape(remark)}</p>' for remark in report["remarks"]),
        claim_tables.html(report["claims"]),
        _table(report, colours),
        _references_table(report, colours),
        gallery(figures(report, curves)),
        judge_tables.html(report, ordered(report)),
        benchmark_tables.html_table(report["candidates"], ordered(report)),
        *([_llm_judge(report, colours)] if "llm_judge" in report else []),
        samples_html(ordered(report), report["baseline"], responses, colours, side_by_side),
        method_html(
            made,
            _definitions(report),
            {name: candidate["path"] for name, candidate in report["candidates"].items()},
            f"{report['bootstrap_samples']} bootstrap samples, tie margin {report['tie_margin']:g}.",
        ),
    ]
    return page(report["statement"], parts)


def _table(report: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    judges = list(report["units"])
    header = ["candidate"]
    header += [f"win rate,<br>{escape(judge_title(judge))}" for judge in judges]
    header += [escape(report["units"][j].partition(" (")[0]).replace(" ", "<br>", 1) for j in scoring(report)]
    header += ["KL from SFT,<br>nats", "tokens", "ended"]
    has_text = any(candidate["text_loss"] is not None for candidate in report["candidates"].values())
    header += ["text loss,<br>nats"] if has_text else []
    own = {name: benchmark_tables.own_benchmark(candidate) for name, candidate in report["candidates"].items()}
    header += ["benchmark"] if any(own.values()) else []
    rows = []
    for name in ordered(report):
        candidate = report["candidates"][name]
        cells = [_name(name, colours)]
        for judge in judges:
            judged = candidate["judges"][judge]
            shown = _share(judged["win_rate"], judged["win_rate_ci"])
            cells.append("<small>baseline</small>" if name == report["baseline"] else shown)
        for judge in scoring(report):
            scores = candidate["judges"][judge]
            low, high = scores["score_ci"]
            cells.append(f"{scores['score']:z.3f} <small>[{low:z.3f}, {high:z.3f}]</small>")
        cells.append("–" if candidate["kl"] is None else f"{candidate['kl']:z.2f}")
        cells += [f"{candidate['mean_tokens']:.1f}", f"{100 * candidate['fraction_ended']:.0f} %"]
        if has_text:
            cells.append("–" if candidate["text_loss"] is None else f"{candidate['text_loss']:.3f}")
        if any(own.values()):
            measured = own[name]
            cells.append("–" if measured is None else f"{100 * measured['accuracy']:.1f} %")
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join(rows)
    return (
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>\n'
        f'<p class="note">{report["prompts"]} held-out prompts, the same for all. In brackets: 95 % intervals.</p>'
    )


def _name(candidate: str, colours: Mapping[str, str]) -> str:
    return colour_key(colours[candidate]) + escape(candidate).replace("[", "<wbr>[").replace(",", ",<wbr>")


def _share(rate: float | None, ci: Sequence[float] | None) -> str:
    if rate is None or ci is None:
        return "–"
    low, high = (100 * bound for bound in ci)
    return f"{100 * rate:.1f} % <small>[{low:.1f}, {high:.1f}]</small>"


def _llm_judge(report: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """How far the LLM judge can be trusted, and what it took."""
    header = ["candidate", "verdicts", "ties", "identical<br>responses", "differ between<br>the orders"]
    header += ["answers that<br>cannot be read", "position bias"]
    rows = []
    for name in ordered(report):
        if name == report["baseline"]:
            continue
        judged = report["candidates"][name]["judges"]["llm"]
        cells = [
            _name(name, colours),
            f"{judged['n']} of {report['prompts']}",
            "–" if judged["ties"] is None else f"{100 * judged['ties']:.1f} %",
            str(judged["identical"]),
            str(judged["inconsistent"]),
            str(judged["parse_failures"]),
            _share(judged["position_bias"], judged["position_bias_ci"]),
        ]
        rows.append("<tr>" + "".join(f"<td>{cell}</td>" for cell in cells) + "</tr>")
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join(rows)
    return (
        "<h2>The LLM judge</h2>\n"
        f'<p class="note">{escape(usage_line(report["llm_judge"]))} Each pair of responses was shown in both orders; '
        "verdicts that differ between them count as ties, a prompt with an answer that cannot be read has no verdict, "
        "and identical responses tie without being shown. All answers are in judge_llm.jsonl.</p>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
    )


def _references_table(report: Mapping[str, Any], colours: Mapping[str, str]) -> str:
    """Text metrics against references; "" where none was asked for."""
    measured = against_references(report)
    if not measured:
        return ""
    head = "<th>against references</th>"
    head += "".join(f"<th>{escape(TITLES[metric])},<br>{n} prompts</th>" for metric, n in measured.items())
    rows = []
    for name in ordered(report):
        cells = [f"<td>{colour_key(colours[name])}{escape(name)}</td>"]
        for found in report["candidates"][name]["metrics"].values():
            low, high = found["ci"]
            cells.append(f"<td>{found['value']:.1f} <small>[{low:.1f}, {high:.1f}]</small></td>")
        rows.append(f"<tr>{''.join(cells)}</tr>")
    body = "\n".join(rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _definitions(report: Mapping[str, Any]) -> dict[str, str]:
    about_llm = ("win rate of an LLM judge", "position bias")
    return {word: text for word, text in DEFINITIONS.items() if "llm_judge" in report or word not in about_llm}

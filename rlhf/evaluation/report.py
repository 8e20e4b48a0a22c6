"""report.html: one file that opens without a network. The answer first, then table, plots, samples, method."""

from __future__ import annotations

import base64
import difflib
import importlib.metadata
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from enum import Enum
from html import escape
from itertools import zip_longest
from pathlib import Path
from typing import Any

from rlhf.config import Config
from rlhf.evaluation import benchmark_tables, judging_tables
from rlhf.evaluation.comparison import against_references, judge_title, ordered, scoring
from rlhf.evaluation.curves import Curves
from rlhf.evaluation.llm_judge import usage_line
from rlhf.evaluation.plots import Figure, figures, styles
from rlhf.evaluation.sweeps import claims_view
from rlhf.evaluation.text_metrics import TITLES

_PACKAGES = ("rlhf", "torch", "transformers", "trl", "peft", "deepspeed", "numpy")
_VERDICTS = {1.0: "wins", 0.5: "ties", 0.0: "loses", None: "no verdict"}
_SAME_ENOUGH = 0.3  # below this share of common words, marking differences would mark everything

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

_STYLE = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #1a1a1a; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 1140px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.15rem; margin: 0 0 8px; color: #555; font-weight: 600; }
h2 { font-size: 1.3rem; margin: 48px 0 12px; padding-top: 12px; border-top: 1px solid #ddd; }
h3 { font-size: 1.05rem; margin: 28px 0 8px; }
.answer { font-size: clamp(1.1rem, 2.5vw, 1.35rem); line-height: 1.4; margin: 0 0 12px; font-weight: 600; }
.remark { margin: 4px 0; padding-left: 12px; border-left: 4px solid #E69F00; }
.note { color: #555; font-size: 0.92rem; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.9rem; margin: 12px 0; }
th, td { padding: 6px 9px 6px 0; text-align: right; white-space: nowrap; border-bottom: 1px solid #e4e4e4; }
th { vertical-align: bottom; color: #444; font-weight: 600; }
th:first-child, td:first-child { text-align: left; position: sticky; left: 0; background: #fff; }
td:first-child { white-space: normal; min-width: 8em; }
td small { color: #555; }
.figures { display: grid; grid-template-columns: repeat(auto-fill, minmax(min(100%, 440px), 1fr)); gap: 20px 24px; }
figure { margin: 0; break-inside: avoid; }
figure img { width: 100%; height: auto; display: block; }
figcaption { color: #555; font-size: 0.88rem; line-height: 1.4; }
.key { display: inline-block; width: 0.75em; height: 0.75em; margin-right: 0.45em; border-radius: 2px; }
.sample { border: 1px solid #d5d5d5; border-radius: 8px; padding: 12px 16px; margin: 14px 0; break-inside: avoid; }
.prompt { white-space: pre-wrap; overflow-wrap: anywhere; margin: 0 0 4px; font-weight: 600; }
.turn { color: #555; font-weight: 400; }
.responses { display: grid; grid-template-columns: repeat(auto-fit, minmax(min(100%, 230px), 1fr)); gap: 10px 18px; }
.responses + .responses { margin-top: 14px; }
.response { border-top: 4px solid; padding-top: 6px; min-width: 0; }
.text { white-space: pre-wrap; overflow-wrap: anywhere; margin: 2px 0; }
.empty { color: #555; font-style: italic; }
mark { background: #FFF0C2; color: inherit; text-decoration: underline 2px; text-underline-offset: 3px; }
.scores { color: #555; font-size: 0.85rem; margin: 4px 0 0; font-variant-numeric: tabular-nums; }
.task { float: right; color: #555; font-size: 0.85rem; margin-left: 12px; }
dt { font-weight: 600; margin-top: 8px; } dd { margin: 0; }
pre { background: #f6f6f6; padding: 12px; overflow-x: auto; font-size: 0.85rem; line-height: 1.4; }
code { overflow-wrap: anywhere; }
summary { cursor: pointer; }
@media print { main { max-width: none; padding: 0; } body { font-size: 11pt; } h2 { break-after: avoid; }
  .figures { grid-template-columns: 1fr 1fr; } .responses { grid-template-columns: repeat(3, 1fr); }
  .scroll { overflow: visible; } }
"""


@dataclass(frozen=True)
class Made:
    """How a comparison was made, for a reader who wants to make it again."""

    command: str
    config: str  # YAML
    versions: dict[str, str]
    data: dict[str, Any]  # the source's fingerprint
    folders: dict[str, str]


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
        claims_view.html(report["claims"]),
        _table(report, colours),
        _references_table(report, colours),
        gallery(figures(report, curves)),
        judging_tables.html(report, ordered(report)),
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


def page(title: str, parts: Sequence[str]) -> str:
    """A self-contained document of these parts, HTML each."""
    document = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )
    return document.encode("utf-8", "replace").decode("utf-8")  # a lone surrogate in the data cannot be written


def colour_key(colour: str) -> str:
    return f'<span class="key" style="background:{colour}"></span>'


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


def gallery(drawn: Sequence[Figure]) -> str:
    """The figures, under the name of each group."""
    parts = []
    for group in dict.fromkeys(figure.group for figure in drawn):
        parts.append(f'<h2>{escape(group)}</h2>\n<div class="figures">')
        for figure in drawn:
            if figure.group == group:
                # As an image each SVG keeps its ids to itself, and can run nothing.
                data = base64.b64encode(figure.svg.encode()).decode()
                parts.append(
                    f'<figure><img alt="{escape(figure.title)}. {escape(figure.caption)}" '
                    f'src="data:image/svg+xml;base64,{data}">'
                    f"<figcaption>{escape(figure.caption)}</figcaption></figure>"
                )
        parts.append("</div>")
    return "\n".join(parts)


def spread_over_tasks(responses: Sequence[Mapping[str, Any]], count: int) -> list[Mapping[str, Any]]:
    """`count` rows taking turns over the task families, in the data's order: no score decides what is shown."""
    by_task: dict[str, list[Mapping[str, Any]]] = {}
    for row in responses:
        by_task.setdefault(row["task"], []).append(row)
    turns = zip_longest(*by_task.values())
    return [row for turn in turns for row in turn if row is not None][:count]


def samples_html(
    names: Sequence[str],
    baseline: str,
    responses: Sequence[Mapping[str, Any]],
    colours: Mapping[str, str],
    count: int,
) -> str:
    """`count` prompts with the answers of all `names`, what the baseline's has not underlined."""
    cards = []
    for row in spread_over_tasks(responses, count):
        reference = row["candidates"][baseline]["response"]
        shown = [
            _response(name, row["candidates"][name], colours[name], None if name == baseline else reference)
            for name in names
        ]
        task = f'<span class="task">{escape(row["task"].replace("_", " "))}</span>' if row["task"] else ""
        answers = f'<div class="responses">{"".join(shown)}</div>'
        cards.append(f'<div class="sample">{task}{_conversation(row["messages"])}{answers}</div>')
    return (
        "<h2>Samples side by side</h2>\n"
        f'<p class="note">{len(cards)} of {len(responses)} prompts, taking turns over the task families in the data\'s '
        f"order; scores play no part in the choice. Underlined: words that {escape(baseline)}'s answer has not. All "
        "answers are in responses.jsonl.</p>\n" + "\n".join(cards)
    )


def _conversation(messages: Sequence[Mapping[str, str]]) -> str:
    if len(messages) == 1:
        return f'<p class="prompt">{escape(messages[0]["content"])}</p>'
    return "".join(
        f'<p class="prompt"><span class="turn">{escape(message["role"])}: </span>{escape(message["content"])}</p>'
        for message in messages
    )


def _response(name: str, answer: Mapping[str, Any], colour: str, reference: str | None) -> str:
    text = answer["response"]
    if text == "":
        shown = '<p class="text empty">(empty)</p>'
    else:
        shown = f'<p class="text">{escape(text) if reference is None else mark_differences(text, reference)}</p>'
    scores = [f"{judge_title(judge)} {score:z.2f}" for judge, score in answer["scores"].items()]
    if reference is not None:
        scores += [f"{judge_title(judge)}: {_VERDICTS[win]}" for judge, win in answer["verdicts"].items()]
    if answer["kl"] is not None and reference is not None:
        scores.append(f"KL {answer['kl']:z.1f}")
    if not answer["ended"]:
        scores.append("cut off")
    return (
        f'<div class="response" style="border-color:{colour}"><strong>{escape(name)}</strong>{shown}'
        f'<p class="scores">{escape(" · ".join(scores))}</p></div>'
    )


def mark_differences(text: str, reference: str) -> str:
    """`text` as HTML with the words that `reference` has not in <mark>; plain when the two have little in common."""
    ours, theirs = text.split(" "), reference.split(" ")
    matcher = difflib.SequenceMatcher(a=theirs, b=ours, autojunk=False)
    if matcher.ratio() < _SAME_ENOUGH:
        return escape(text)
    parts = []
    for kind, _, _, start, end in matcher.get_opcodes():
        words = escape(" ".join(ours[start:end]))
        if start < end:
            parts.append(words if kind == "equal" else f"<mark>{words}</mark>")
    return " ".join(parts)


def _definitions(report: Mapping[str, Any]) -> dict[str, str]:
    about_llm = ("win rate of an LLM judge", "position bias")
    return {word: text for word, text in DEFINITIONS.items() if "llm_judge" in report or word not in about_llm}


def method_html(made: Made, definitions: Mapping[str, str], candidates: Mapping[str, str], note: str) -> str:
    """How it was made: command, what the words mean, where models and data came from, versions, config."""

    def rows(values: Mapping[str, Any]) -> str:
        return "".join(f"<dt>{escape(str(k))}</dt><dd><code>{escape(str(v))}</code></dd>" for k, v in values.items())

    meanings = "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in definitions.items())
    return f"""<h2>How it was made</h2>
<pre>{escape(made.command)}</pre>
<h3>What the words mean</h3>
<dl>{meanings}</dl>
<p class="note">{escape(note)}</p>
<h3>Candidates</h3>
<dl>{rows(candidates)}</dl>
<h3>Folders</h3>
<dl>{rows(made.folders)}</dl>
<h3>Data</h3>
<dl>{rows(made.data)}</dl>
<h3>Versions</h3>
<p>{escape(", ".join(f"{name} {version}" for name, version in made.versions.items()))}</p>
<details><summary>Config</summary><pre>{escape(made.config)}</pre></details>"""

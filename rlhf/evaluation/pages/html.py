"""What pages of results are made of: style, figures, samples side by side, how it was made."""

from __future__ import annotations

import base64
import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import escape
from itertools import zip_longest
from typing import Any

from rlhf.evaluation.judges.judge import judge_title
from rlhf.evaluation.pages.figures import Figure

_VERDICTS = {1.0: "wins", 0.5: "ties", 0.0: "loses", None: "no verdict"}
_SAME_ENOUGH = 0.3  # below this share of common words, marking differences would mark everything

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

"""How claims are shown, on a page and on a terminal: the question, yes, no or open, and what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

_WORDS = {True: "yes", False: "no", None: "open"}
_STYLE = (
    "<style>.claims :is(td, th) { text-align: left; white-space: normal; vertical-align: top; } "
    ".claims td:nth-child(2) { font-weight: 600; } .claims td:first-child { min-width: 14em; }</style>"
)


def html(claims: Sequence[Mapping[str, Any]]) -> str:
    """A table of claims as report.json has them; "" without any."""
    if not claims:
        return ""
    rows = "\n".join(
        f"<tr><td>{escape(c['question'])}</td><td>{_WORDS[c['holds']]}</td><td>{escape(c['answer'])}</td></tr>"
        for c in claims
    )
    head = "<th>question</th><th></th><th>what was measured</th>"
    return (
        f'{_STYLE}<div class="scroll"><table class="claims"><thead><tr>{head}</tr></thead><tbody>\n{rows}\n'
        "</tbody></table></div>"
    )


def lines(claims: Sequence[Mapping[str, Any]]) -> list[str]:
    return [f"{claim['question']} {_WORDS[claim['holds']]}: {claim['answer']}" for claim in claims]

"""Puts the tables of config keys, made from the schema, into reference/keys.md while the site is built."""

from __future__ import annotations

import ast
import html
import inspect
import re
from enum import Enum
from functools import cache
from typing import Any

MARK = "<!-- keys -->"
CHANGED = "<!-- changed -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    if MARK in markdown:
        markdown = markdown.replace(MARK, tables()).replace(CHANGED, changed())
    return markdown


def tables() -> str:
    """One table for each node that has keys, in the order of the schema; inner nodes have headings of their own."""
    from rlhf.config.keys import all_keys, show

    nodes: dict[str, list[str]] = {}
    explained: set[str] = set()  # words that several keys take are explained at the first of them
    for key in all_keys().values():
        node = key.name.rpartition(".")[0] or "top level"
        cells = (f"`{key.name}`", f"`{show(key.default)}`", key.allowed, _meaning(key.meaning, key.type, explained))
        nodes.setdefault(node, ["| key | default | takes | meaning |", "|---|---|---|---|"]).append(_row(cells))
    tops = list(dict.fromkeys(node.partition(".")[0] for node in nodes))
    ordered = sorted(nodes, key=lambda node: (tops.index(node.partition(".")[0]), "." in node))
    return "\n\n".join(f"{'###' if '.' in node else '##'} {node}\n\n" + "\n".join(nodes[node]) for node in ordered)


def changed() -> str:
    """Where `python -m rlhf`, which takes the sandbox and its middle model, differs from the schema's defaults."""
    from rlhf.cli import compose, main
    from rlhf.config.keys import all_keys, flatten, show

    [job] = compose.expand(main._parse([]))
    given = flatten(job.config)
    rows = [
        _row((f"`{name}`", f"`{show(key.default)}`", f"`{show(given[name])}`"))
        for name, key in all_keys().items()
        if name in given and show(key.default) != show(given[name])
    ]
    return "\n".join(["| key | schema | `python -m rlhf` |", "|---|---|---|", *rows])


def _row(cells: tuple[str, ...]) -> str:
    return "| " + " | ".join(cell.replace("|", r"\|") for cell in cells) + " |"


def _meaning(comment: str, annotation: Any, explained: set[str]) -> str:
    """The comment beside the key, and beside each word that it may have; null as it is typed."""
    said = html.escape(re.sub(r"\bNone\b", "null", comment), quote=False)
    name, words = _words(annotation)
    new = {} if name in explained else words
    explained.add(name)
    lines = [f"`{word}`: {html.escape(why, quote=False)}" for word, why in new.items() if why]
    return "<br>".join([*([said] if said else []), *lines])


@cache
def _words(annotation: Any) -> tuple[str, dict[str, str]]:
    """An enum's name and its members with the comments beside them; of a list of them likewise; else nothing."""
    from rlhf.config import choices
    from rlhf.config.keys import _members

    inner = [m for part in _members(annotation)[0] for m in (part, *getattr(part, "__args__", ()))]
    enum = next((m for m in inner if isinstance(m, type) and issubclass(m, Enum)), None)
    if enum is None:
        return "", {}
    lines = inspect.getsource(choices).splitlines()
    node = next(n for n in ast.parse("\n".join(lines)).body if isinstance(n, ast.ClassDef) and n.name == enum.__name__)
    assigned = [part for part in node.body if isinstance(part, ast.Assign)]
    return enum.__name__, {
        ast.literal_eval(part.value): lines[part.lineno - 1].partition("  # ")[2].split(": rlhf/")[0]
        for part in assigned
    }

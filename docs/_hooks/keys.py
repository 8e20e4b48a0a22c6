"""Puts the table of config keys, made from the schema, into reference/keys.md while the site is built."""

from __future__ import annotations

import html
from typing import Any

MARK = "<!-- keys -->"


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    return markdown.replace(MARK, tables()) if MARK in markdown else markdown


def tables() -> str:
    """One table for each top-level node, in the order of the schema."""
    from rlhf.config.keys import all_keys, show

    nodes: dict[str, list[str]] = {}
    for key in all_keys().values():
        node = key.name.partition(".")[0] if "." in key.name else "top level"
        row = f"| `{key.name}` | `{show(key.default)}` | {key.allowed} | {html.escape(key.meaning)} |"
        nodes.setdefault(node, ["| key | default | takes | meaning |", "|---|---|---|---|"]).append(row)
    return "\n\n".join(f"## {node}\n\n" + "\n".join(rows) for node, rows in nodes.items())

"""An inspection for the terminal: what was understood, in one screen and three examples."""

from __future__ import annotations

import os
import sys
from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.inspection.measure import LEAKED_WORDS, Inspection, Span
from rlhf.runtime.printable import printable

_LEARNED, _READ, _PLAIN = "\033[32m", "\033[90m", "\033[0m"
_LONGEST_EXAMPLE = 2000  # characters


def in_colour() -> bool:
    """Whether the terminal shows colours; NO_COLOR (no-color.org) says no, FORCE_COLOR yes."""
    if os.environ.get("NO_COLOR"):
        return False
    return bool(os.environ.get("FORCE_COLOR")) or sys.stdout.isatty()


def text(found: Inspection, *, colour: bool) -> str:
    """The whole page; without colour, brackets stand round what the loss counts."""
    blocks = [printable("\n".join(_facts(found)))]
    if found.lengths:
        blocks.append("\n".join(_lengths(found)))
    if found.refused:
        rows = [f"  {refused.rows:>7,}  {refused.problem} (first: {refused.first})" for refused in found.refused]
        blocks.append(printable("\n".join(["left out, and why", *rows])))
    mark = f"{_LEARNED}green{_PLAIN} is learned, {_READ}grey{_PLAIN} is read" if colour else "⟦what is learned⟧"
    for number, example in enumerate(found.examples, start=1):
        title = f"example {number}: {printable(example.title)}" + (f"   ({mark})" if number == 1 else "")
        blocks.append(f"{title}\n{rendered(example.spans, colour=colour)}")
    return "\n\n".join(blocks)


def _facts(found: Inspection) -> list[str]:
    read = found.read
    lines = [f"data={found.source}" + (f"  {found.path}" if found.path else "")]
    lines += [f"  {name:<16}{words}" for name, words in rows_in_words(read)]
    if read.get("records_screened"):
        lines.append(f"  {'screened':<16}{read['records_screened']:,} records left out by data.quality")
    for kind, splits in found.records.items():
        counts = ", ".join(f"{split} {count:,}" for split, count in splits.items())
        lines.append(f"  {kind:<16}{sum(splits.values()):,} ({counts})")
    if any(kind != "texts" for kind in found.records):
        exact, near = found.duplicates
        total = max(sum(splits.values()) for splits in found.records.values())
        sample = f", in {found.looked_at:,} looked at" if found.looked_at < total else ""
        lines.append(f"  {'duplicates':<16}{exact:,} exact, {near:,} near{sample}")
        lines.append(
            f"  {'leakage':<16}{found.leaked:,} training records share {LEAKED_WORDS} words in a row with a held-out "
            "prompt"
        )
    return lines


def rows_in_words(read: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Rows read, used and refused; of a mixture, those of each part, and how much of it they became."""

    def counted(given: Mapping[str, Any]) -> str:
        used = given["rows_read"] - given["rows_refused"]
        return f"{given['rows_read']:,} read, {used:,} used, {given['rows_refused']:,} refused"

    if "rows_read" in read:
        return [("rows", counted(read))]
    lines = []
    for name, part in read.get("parts", {}).items():
        taken = [f"{given[name]:,} {kind}" for kind, given in read["realised"].items() if given and given.get(name)]
        lines.append(
            (name, "; ".join([*([counted(part)] if "rows_read" in part else []), f"gives {', '.join(taken)}"]))
        )
    return lines


def _lengths(found: Inspection) -> list[str]:
    names = list(found.lengths[0].summary())
    lines = [f"tokens (template {found.template})".ljust(32) + "".join(f"{name:>9}" for name in names)]
    for lengths in found.lengths:
        numbers = "".join(f"{number:>9,.0f}" for number in lengths.summary().values())
        lines.append(f"  {lengths.name:<30}{numbers}")
    lines += [f"  {limit}" for limit in found.limits]
    if found.packing:
        shares = ", ".join(f"{100 * share:.0f} % {how}" for how, share in found.packing.items())
        lines.append(f"  of a batch is text: {shares}")
    return lines


def rendered(spans: Sequence[Span], *, colour: bool) -> str:
    """An example's text, indented, with what is learned marked; of a long one, beginning and end."""
    marked = []
    for span in spans:
        shown = _shortened(span.text)
        if colour:
            begin = _LEARNED if span.learned else _READ
            marked.append("\n".join(f"{begin}{line}{_PLAIN}" for line in shown.split("\n")))
        else:
            marked.append(f"⟦{shown}⟧" if span.learned else shown)
    return "\n".join(f"  | {line}" for line in "".join(marked).split("\n"))


def _shortened(text: str) -> str:
    safe = printable(text)
    if len(safe) <= _LONGEST_EXAMPLE:
        return safe
    half = _LONGEST_EXAMPLE // 2
    return f"{safe[:half]}\n... {len(safe) - 2 * half:,} characters ...\n{safe[-half:]}"

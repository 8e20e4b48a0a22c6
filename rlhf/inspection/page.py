"""An inspection as one page that opens without a network: the numbers, the lengths drawn, the examples marked."""

from __future__ import annotations

import io
from html import escape

from rlhf.evaluation.pages.figures import SETTINGS
from rlhf.inspection.measure import LEAKED_WORDS, Inspection, Lengths, Span
from rlhf.inspection.text import rows_in_words

_STYLE = """
:root { color-scheme: light; }
body { margin: 0; color: #1a1a1a; font: 16px/1.5 system-ui, -apple-system, "Segoe UI", sans-serif; }
main { max-width: 960px; margin: 0 auto; padding: 24px 16px 64px; }
h1 { font-size: 1.3rem; margin: 0 0 4px; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin: 36px 0 8px; padding-top: 10px; border-top: 1px solid #ddd; }
h3 { font-size: 1rem; margin: 20px 0 6px; }
.note { color: #555; }
.scroll { overflow-x: auto; }
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: 0.93rem; }
th, td { padding: 5px 18px 5px 0; text-align: right; border-bottom: 1px solid #e4e4e4; vertical-align: top; }
th:first-child, td:first-child, td.words { text-align: left; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: 12px; border-radius: 6px;
      color: #555; font-size: 0.86rem; max-height: 34em; overflow-y: auto; }
mark { background: #c9ecdf; color: #00402d; border-bottom: 2px solid #009E73; }
svg { max-width: 100%; height: auto; }
"""


def page(found: Inspection) -> str:
    """The whole file."""
    body = [f"<h1>{escape(_title(found))}</h1>", _counts(found)]
    if found.lengths:
        body += ["<h2>Lengths</h2>", _lengths(found), histogram(found.lengths)]
    if found.refused:
        body += ["<h2>Left out, and why</h2>", _refused(found)]
    if found.examples:
        body += [
            "<h2>Examples</h2>",
            '<p class="note">As a model reads them; <mark>marked</mark> is what the loss counts, the rest is read '
            "only.</p>",
        ]
        body += [f"<h3>{escape(example.title)}</h3><pre>{_marked(example.spans)}</pre>" for example in found.examples]
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><meta name="viewport" '
        f'content="width=device-width, initial-scale=1"><title>{escape(_title(found))}</title>'
        f"<style>{_STYLE}</style></head><body><main>{''.join(body)}</main></body></html>\n"
    )


def _title(found: Inspection) -> str:
    return f"data={found.source}" + (f" {found.path}" if found.path else "")


def _counts(found: Inspection) -> str:
    splits = list(dict.fromkeys(split for counts in found.records.values() for split in counts))
    head = "".join(f"<th>{escape(name)}</th>" for name in ("", *splits))
    rows = [f"<tr>{head}</tr>"]
    for kind, counts in found.records.items():
        cells = "".join(f"<td>{counts.get(split, 0):,}</td>" for split in splits)
        rows.append(f"<tr><td>{escape(kind)}</td>{cells}</tr>")
    notes = []
    notes += [f"{name}: {words}" for name, words in rows_in_words(found.read)]
    if found.read.get("records_screened"):
        notes.append(f"{found.read['records_screened']:,} records left out by data.quality")
    if any(kind != "texts" for kind in found.records):
        exact, near = found.duplicates
        notes.append(f"{exact:,} exact and {near:,} near duplicates among {found.looked_at:,} records")
        notes.append(f"{found.leaked:,} training records share {LEAKED_WORDS} words in a row with a held-out prompt")
    return (
        f'<p class="note">{escape("; ".join(notes))}.</p><table>{"".join(rows)}</table>'
        if notes
        else (f"<table>{''.join(rows)}</table>")
    )


def _lengths(found: Inspection) -> str:
    names = list(found.lengths[0].summary())
    rows = ["<tr><th>tokens</th>" + "".join(f"<th>{escape(name)}</th>" for name in names) + "</tr>"]
    for lengths in found.lengths:
        cells = "".join(f"<td>{number:,.0f}</td>" for number in lengths.summary().values())
        rows.append(f"<tr><td>{escape(lengths.name)}</td>{cells}</tr>")
    notes = [
        *found.limits,
        *(f"{100 * share:.1f} % of the tokens are text, {how}" for how, share in found.packing.items()),
    ]
    listed = "".join(f"<li>{escape(note)}</li>" for note in notes)
    return f"<table>{''.join(rows)}</table><ul>{listed}</ul>"


def _refused(found: Inspection) -> str:
    rows = ["<tr><th>rows</th><th>why</th><th>first</th></tr>"]
    for refused in found.refused:
        rows.append(
            f"<tr><td>{refused.rows:,}</td><td class=words>{escape(refused.problem)}</td>"
            f"<td class=words>{escape(refused.first)}</td></tr>"
        )
    return f'<div class="scroll"><table>{"".join(rows)}</table></div>'


def _marked(spans: list[Span]) -> str:
    return "".join(f"<mark>{escape(s.text)}</mark>" if s.learned else escape(s.text) for s in spans)


def histogram(all_lengths: list[Lengths]) -> str:
    """How many records have how many tokens, as an SVG; one row of bars a kind, on one axis."""
    import matplotlib
    import numpy as np

    matplotlib.use("Agg")
    from matplotlib import pyplot

    with matplotlib.rc_context(SETTINGS):  # type: ignore[arg-type]  # its keys are a Literal of all there are
        most = max(max(lengths.tokens) for lengths in all_lengths)
        edges = np.linspace(0, most + 1, min(40, most + 1) + 1)
        figure, axes = pyplot.subplots(
            len(all_lengths), 1, sharex=True, figsize=(7.2, 0.6 + 1.3 * len(all_lengths)), squeeze=False
        )
        for axis, lengths in zip(axes[:, 0], all_lengths, strict=True):
            axis.hist(lengths.tokens, bins=edges, color="#0072B2", edgecolor="white", linewidth=0.4)
            axis.axvline(np.median(lengths.tokens), color="#1a1a1a", linestyle="--", linewidth=1)
            axis.set_title(f"{lengths.name} (dashed: median {np.median(lengths.tokens):,.0f})")
            axis.set_ylabel("records")
        axes[-1, 0].set_xlabel("tokens")
        figure.tight_layout()
        buffer = io.StringIO()
        figure.savefig(buffer, format="svg", metadata={"Date": None})
        pyplot.close(figure)
    return buffer.getvalue()[buffer.getvalue().index("<svg") :]

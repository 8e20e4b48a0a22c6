"""report.html of published samples: the answer first, then tables, plots and samples side by side."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from rlhf.config import TextMetric
from rlhf.evaluation.pages.figures import Figure, Style, canvas, legend_columns, styles, whiskers
from rlhf.evaluation.pages.html import colour_key, gallery, mark_differences, page
from rlhf.evaluation.published.differences import BASES, PPO, label, methods
from rlhf.evaluation.published.samples import Cell, Context, parameters
from rlhf.evaluation.published.samples_text import Table, shown, tables
from rlhf.evaluation.tasks.text_metrics import NAMES, TITLES, as_text

CARDS = 12  # contexts shown side by side
_LONG_CONTEXT = 400  # characters; of a longer one the end is shown, the whole on a click
_AS_IN_THE_CHAIN = {**dict.fromkeys(BASES, "base"), PPO: "ppo"}  # whose looks they have

DEFINITIONS = {
    "BLEU": "of the corpus, by sacrebleu with its defaults; beside a sample, its sentence's BLEU with effective order",
    "ROUGE": "F1 of the longest common subsequence (L), words (1) or pairs of words (2), with stemming, by "
    "rouge-score; mean over samples",
    "SQuAD": "F1 over words, and exact match, without case, punctuation and articles, the best over the references, as "
    "SQuAD 2.0's evaluate-v2.0.py; mean over samples",
    "DROP": "the same with numbers compared by value and spans matched one to one, as DROP's drop_eval.py; mean over "
    "samples",
    "accuracy": "share of samples that are a reference but for case, space and punctuation around it",
    "difference": "of two models of one size under one prompt type, on the contexts that both have",
    "95 % interval": "percentile bootstrap over contexts; a difference's is paired: both models on the same drawn "
    "contexts, a corpus's BLEU computed anew for each draw. It covers the choice of contexts, not the luck of a "
    "training seed",
}


def render(report: Mapping[str, Any], cells: Sequence[Cell]) -> str:
    """The page of what `differences.summarise` made of `cells`."""
    names = NAMES[TextMetric(report["metric"])]
    looks = _looks(cells)
    parts = [
        "<h1>Published samples against references</h1>",
        f'<p class="answer">{escape(report["statement"])}</p>',
        f'<p class="note">{escape(report["basis"])}</p>',
        *(_table(report, cells, name, looks) for name in names),
        f'<p class="note">{_contexts_per_cell(report)} contexts in each cell.</p>',
        gallery(figures(report, cells)),
        _samples(cells, looks, names[0]),
        "<h2>What the words mean</h2>",
        "<dl>" + "".join(f"<dt>{escape(word)}</dt><dd>{escape(text)}</dd>" for word, text in DEFINITIONS.items()),
        f'</dl><p class="note">{report["bootstrap_samples"]:,} bootstrap samples.</p>',
    ]
    return page(report["statement"], parts)


def _looks(cells: Sequence[Cell]) -> dict[str, Style]:
    """A method's look; gpt, sft and ppo-noptx have those of base, sft and ppo in a comparison of models."""
    names = {method: _AS_IN_THE_CHAIN.get(method, method) for method in methods(cells)}
    looks = styles(list(names.values()))
    return {method: looks[name] for method, name in names.items()}


def _table(report: Mapping[str, Any], cells: Sequence[Cell], name: str, looks: Mapping[str, Style]) -> str:
    parts = [f"<h3>{escape(TITLES[name])}</h3>"]
    for table in tables(report, cells):
        head = "".join(f"<th>{escape(column)}</th>" for column in (table.title, *table.columns))
        body = "\n".join(
            f"<tr><td>{colour_key(looks[method].colour)}{escape(method)}</td>"
            + "".join(f"<td>{shown(cell, name)}</td>" for cell in row)
            + "</tr>"
            for method, row in table.rows
        )
        parts.append(
            f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'
        )
    return "\n".join(parts)


def _contexts_per_cell(report: Mapping[str, Any]) -> str:
    counts = sorted({cell["n"] for cell in report["cells"]})
    return f"{counts[0]:,}" if len(counts) == 1 else f"{counts[0]:,} to {counts[-1]:,}"


def figures(report: Mapping[str, Any], cells: Sequence[Cell]) -> list[Figure]:
    """The metric by size, or by model where models have no size, a figure a prompt type; then the differences."""
    name = NAMES[TextMetric(report["metric"])][0]
    looks = _looks(cells)
    bounds = [bound for row in report["cells"] for bound in row[f"{name}_ci"]]
    margin = 0.05 * (max(bounds) - min(bounds)) or 1.0
    limits = (min(bounds) - margin, max(bounds) + margin)
    draw = _by_size if len({cell.size for cell in cells}) > 1 else _by_model
    drawn = [draw(table, name, looks, limits) for table in tables(report, cells)]
    return drawn + _differences(report, cells, name, looks)


def _by_size(table: Table, name: str, looks: Mapping[str, Style], limits: tuple[float, float]) -> Figure:
    title = f"{TITLES[name]} by size" + (f", {table.title}" if table.title else "")
    caption = f"A line a method, against parameters on a logarithmic axis; bars are 95 % intervals{_apart(table)}."
    with canvas(title, caption, "By size") as (axes, finish):
        for place, (method, row) in enumerate(table.rows):
            points = [(parameters(size), cell) for size, cell in zip(table.columns, row, strict=True) if cell]
            points.sort(key=lambda point: point[0])
            look = looks[method]
            values = [cell[name] for _, cell in points]
            axes.errorbar(
                [count * 1.06 ** (place - (len(table.rows) - 1) / 2) for count, _ in points],
                values,
                yerr=whiskers(values, [cell[f"{name}_ci"] for _, cell in points]),
                color=look.colour,
                marker=look.marker,
                linestyle=look.line,
                elinewidth=0.9,
                capsize=2,
                label=method,
            )
        axes.set_xscale("log")
        axes.set_xticks([parameters(size) for size in table.columns], table.columns)
        axes.set_xticks([], minor=True)
        axes.set_ylim(*limits)
        axes.set_xlabel("size of the model")
        axes.set_ylabel(TITLES[name])
        axes.figure.legend(loc="outside lower center", ncols=legend_columns([method for method, _ in table.rows]))
        return finish()


def _apart(table: Table) -> str:
    return ", set a little apart" if len(table.rows) > 1 else ""


def _by_model(table: Table, name: str, looks: Mapping[str, Style], limits: tuple[float, float]) -> Figure:
    title = TITLES[name] + (f", {table.title}" if table.title else "")
    rows = [(method, row[0]) for method, row in table.rows if row[0]]
    with canvas(title, "Bars are 95 % intervals.", "By model", 1.0 + 0.3 * len(rows)) as (axes, finish):
        for place, (method, cell) in enumerate(rows):
            look = looks[method]
            error = whiskers([cell[name]], [cell[f"{name}_ci"]])
            axes.errorbar([cell[name]], [place], xerr=error, color=look.colour, marker=look.marker, capsize=3)
        axes.set_yticks(range(len(rows)), [method or "all" for method, _ in rows])
        axes.set_ylim(len(rows) - 0.4, -0.6)
        axes.set_xlim(*limits)
        axes.set_xlabel(TITLES[name])
        axes.grid(axis="y", visible=False)
        return finish()


def _differences(
    report: Mapping[str, Any], cells: Sequence[Cell], name: str, looks: Mapping[str, Style]
) -> list[Figure]:
    """A figure for each two methods: their difference at each size and prompt type, and the mean of these."""
    method_and_size = {label(cell): (cell.method, cell.size) for cell in cells}
    of_metric = [row for row in report["differences"] if row["metric"] == name]
    bounds = [bound for row in of_metric for bound in row["ci"]]
    margin = 0.05 * (max(bounds, default=0.0) - min(bounds, default=0.0)) or 1.0
    drawn = []
    for mean in report["overall"]:
        if mean["metric"] != name:
            continue
        pair = [(method_and_size[row["a"]], method_and_size[row["b"]][0], row) for row in of_metric]
        rows = [
            (" ".join(part for part in (size, row.get("prompt_type", "")) if part), row)
            for (a, size), b, row in pair
            if (a, b) == (mean["a"], mean["b"])
        ]
        if len(rows) > 1:
            rows.append(("mean", mean))
        title = f"{mean['a']} minus {mean['b']}"
        caption = (
            f"Difference in {TITLES[name]} on the same contexts, with paired 95 % intervals; left of 0, "
            f"{mean['a']} is worse."
        )
        look = looks[mean["a"]]
        with canvas(title, caption, "Differences", 1.0 + 0.24 * len(rows)) as (axes, finish):
            axes.axvline(0, color="black", linewidth=1, linestyle="--")
            for place, (_, row) in enumerate(rows):
                axes.errorbar(
                    [row["difference"]],
                    [place],
                    xerr=whiskers([row["difference"]], [row["ci"]]),
                    color="black" if row is mean else look.colour,
                    marker="|" if row is mean else look.marker,
                    markersize=10 if row is mean else 5,
                    elinewidth=2 if row is mean else 1.2,
                    capsize=3,
                )
            axes.set_yticks(range(len(rows)), [kind or title for kind, _ in rows])
            axes.set_ylim(len(rows) - 0.4, -0.6)
            axes.set_xlim(min(0.0, *bounds) - margin, max(0.0, *bounds) + margin)
            axes.set_xlabel(f"difference in {TITLES[name]}")
            axes.grid(axis="y", visible=False)
            drawn.append(finish())
    return drawn


def chosen_contexts(cells: Sequence[Cell], count: int) -> list[Context]:
    """`count` contexts at equal distances in the first cell's order, of those that most cells have."""
    held: dict[Context, int] = {}
    for cell in cells:
        for context in cell.contexts:
            held[context] = held.get(context, 0) + 1
    most = max(held.values())
    contexts = [context for context, cells_with_it in held.items() if cells_with_it == most]
    taken = min(count, len(contexts))
    return [contexts[place * len(contexts) // taken] for place in range(taken)]


def _samples(cells: Sequence[Cell], looks: Mapping[str, Style], name: str) -> str:
    contexts = chosen_contexts(cells, CARDS)
    kinds = list(dict.fromkeys(cell.prompt_type for cell in cells))
    cards = [
        _card(context, [cell for cell in cells if cell.prompt_type == kind], looks, kind)
        for context, kind in ((context, kinds[place % len(kinds)]) for place, context in enumerate(contexts))
    ]
    turns = ", the prompt types in turn" if len(kinds) > 1 else ""
    return (
        f'<h2>Samples side by side</h2>\n<p class="note">{len(cards)} contexts at equal distances in the file{turns}; '
        "scores play no part in the choice. Underlined: words that the reference has not, where the two have some in "
        f"common. Beside a name: {escape(TITLES[name])} of that sample.</p>\n" + "\n".join(cards)
    )


def _card(context: Context, cells: Sequence[Cell], looks: Mapping[str, Style], kind: str) -> str:
    having = [cell for cell in cells if context in cell.contexts]
    answers = ""
    for size in dict.fromkeys(cell.size for cell in having):
        of_size = [_sample(cell, context, looks[cell.method]) for cell in having if cell.size == size]
        answers += f'<div class="responses">{"".join(of_size)}</div>'
    tag = f'<span class="task">{escape(kind)}</span>' if kind else ""
    if not having:
        return f'<div class="sample">{tag}{_context(context[0])}<p class="text empty">(no sample)</p></div>'
    references = having[0].references[having[0].contexts.index(context)]
    told = "".join(f'<p class="text">{escape(as_text(reference))}</p>' for reference in references)
    return f'<div class="sample">{tag}{_context(context[0])}<p class="scores">reference</p>{told}{answers}</div>'


def _context(text: str) -> str:
    whole = f'<p class="prompt">{escape(text)}</p>'
    if len(text) <= _LONG_CONTEXT:
        return whole
    return f"<details><summary>… {escape(text[-_LONG_CONTEXT:].lstrip())}</summary>{whole}</details>"


def _sample(cell: Cell, context: Context, look: Style) -> str:
    row = cell.contexts.index(context)
    sample, reference = cell.samples[row], as_text(cell.references[row][0])
    text = mark_differences(sample, reference) if sample else "(empty)"
    style = "text" if sample else "text empty"
    return (
        f'<div class="response" style="border-color:{look.colour}"><strong>{escape(label(cell) or "sample")}</strong> '
        f'<span class="scores">{cell.scores[0].values[row]:.0f}</span><p class="{style}">{text}</p></div>'
    )

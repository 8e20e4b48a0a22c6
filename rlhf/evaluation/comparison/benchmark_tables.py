"""What a comparison shows of its benchmarks: a column, a table of every task and metric, numbers for the manifest.

A candidate's `benchmarks` hold our own multiple choice, which has an `accuracy` and `tasks`, and lm-eval's tasks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

Candidates = Mapping[str, Mapping[str, Any]]  # of a report, by name


def own_benchmark(candidate: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """The multiple choice that a candidate was measured on; None where there was none."""
    return next((numbers for numbers in candidate["benchmarks"].values() if "accuracy" in numbers), None)


def measured_names(candidates: Candidates, names: Sequence[str]) -> list[str]:
    """Those of `names` that were measured: a few-shot prompt, a best of n and a file of outputs have no benchmark."""
    return [name for name in names if candidates[name]["benchmarks"]]


def metrics(candidate: Mapping[str, Any]) -> dict[str, float]:
    """`benchmark_accuracy`, and `<task>_<metric>` of lm-eval's: what the manifest holds of a candidate."""
    own = own_benchmark(candidate)
    flat = {} if own is None else {"benchmark_accuracy": own["accuracy"]}
    for task, numbers in _of_lm_eval(candidate).items():
        flat |= {f"{task}_{metric}": numbers[metric] for metric in _metrics_of(numbers)}
    return flat


def _of_lm_eval(candidate: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    return {task: numbers for task, numbers in candidate["benchmarks"].items() if "accuracy" not in numbers}


def _metrics_of(numbers: Mapping[str, Any]) -> list[str]:
    return [name for name in numbers if name != "n" and "_stderr" not in name]


def text_table(candidates: Candidates, names: Sequence[str]) -> str:
    """lm-eval's numbers as aligned lines for a terminal, a metric a line; "" where there are none."""
    names = measured_names(candidates, names)
    rows = _lm_eval_rows(candidates, names)
    if not rows:
        return ""
    table = [["lm-eval (standard error)", *names], *rows]
    widths = [max(len(row[column]) for row in table) for column in range(len(names) + 1)]
    return "".join(
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        + "\n"
        for row in table
    )


def _lm_eval_rows(candidates: Candidates, names: Sequence[str]) -> list[list[str]]:
    measured = _of_lm_eval(candidates[names[0]]) if names else {}
    return [
        [f"{task} {metric}", *(_shown(candidates[name]["benchmarks"][task], metric) for name in names)]
        for task, numbers in measured.items()
        for metric in _metrics_of(numbers)
    ]


def _shown(numbers: Mapping[str, float], metric: str) -> str:
    name, comma, by = metric.partition(",")
    error = numbers.get(f"{name}_stderr{comma}{by}")
    value = f"{numbers[metric]:.4f}" if metric in numbers else "-"
    return value if error is None else f"{value} ({error:.4f})"


def html_table(candidates: Candidates, names: Sequence[str]) -> str:
    """A section with the accuracy by task and lm-eval's numbers, a candidate a column; "" where there are none."""
    names = measured_names(candidates, names)
    rows = [*_own_rows(candidates, names), *_lm_eval_rows(candidates, names)]
    if not rows:
        return ""
    head = "".join(f"<th>{escape(cell)}</th>" for cell in ("", *names))
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return (
        "<h2>Benchmarks</h2>\n"
        f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>\n'
        '<p class="note">Multiple choice: share of items whose right option is the likeliest; in brackets 95 % '
        "intervals. Each item, with every candidate's log-probabilities of its options, is in benchmark.jsonl. lm-eval "
        "by its own metrics, standard errors in parentheses.</p>"
    )


def _own_rows(candidates: Candidates, names: Sequence[str]) -> list[list[str]]:
    measured = {name: own for name in names if (own := own_benchmark(candidates[name])) is not None}
    if not measured:
        return []
    first = measured[names[0]]
    rows = [[f"all ({first['n']})", *(percent_and_interval(measured[name]) for name in names)]]
    for task, numbers in first["tasks"].items():
        shown = [percent_and_interval(measured[name]["tasks"][task]) for name in names]
        rows.append([f"{task.replace('_', ' ')} ({numbers['n']})", *shown])
    return rows


def percent_and_interval(numbers: Mapping[str, Any]) -> str:
    low, high = (100 * bound for bound in numbers["ci"])
    return f"{100 * numbers['accuracy']:.1f} % [{low:.1f}, {high:.1f}]"

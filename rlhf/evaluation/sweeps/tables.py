"""The report's numbers as tables: a row a point, CSV for a spreadsheet and aligned lines for a terminal."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

_INTERVALS = ("judge", "proxy", "kl", "wins_sft", "wins_largest", "tokens", "text_loss", "benchmark")
_PLAIN = ("label", "method", "base", "parameters", "kl_coef", "ptx_coef", "seeds")
_FIT = ("curve", "quantity", "form", "alpha", "beta", "peak_kl", "peak_gain", "r_squared")


def csv_text(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows as CSV (RFC 4180), columns in the order in which they first appear; None is an empty cell."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, list(dict.fromkeys(key for row in rows for key in row)), restval="")
    writer.writeheader()
    writer.writerows(rows)
    return stream.getvalue()


def points(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Every point with its numbers, their interval's ends and the standard deviation of its seeds."""
    return [
        {name: point[name] for name in _PLAIN}
        | {
            key: cell
            for name in _INTERVALS
            if point[name] is not None
            for key, cell in _flat(name, point[name]).items()
        }
        | {"jobs": " ".join(point["jobs"])}
        for point in report["points"]
    ]


def _flat(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    low, high = found["ci"]
    return {name: found["mean"], f"{name}_low": low, f"{name}_high": high, f"{name}_sd_seeds": found["sd_seeds"]}


def best_of_n(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {"base": base, "n": row["n"], "kl": row["kl"]}
        | {key: cell for name in ("judge", "proxy", "wins_sft") for key, cell in _flat(name, row[name]).items()}
        for base, rows in report["best_of_n"].items()
        for row in rows
    ]


def matched_kl(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    found = []
    for base, rows in report["matched_kl"].items():
        for row in rows:
            for name, cell in row["curves"].items():
                over = row["over_best_of_n"].get(name)
                found.append(
                    {"base": base, "kl": row["kl"], "curve": name}
                    | _flat("judge", cell)
                    | ({} if over is None else _flat("over_best_of_n", over))
                )
    return found


def fits(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    return [
        {name: "; ".join(fit[name]) if isinstance(fit[name], list) else fit[name] for name in _FIT}
        | {f"{name}_{end}": bound for name in ("alpha", "beta", "peak_kl") for end, bound in _ends(fit[f"{name}_ci"])}
        for fit in report["fits"]
    ]


def _ends(ci: Sequence[float] | None) -> list[tuple[str, float | None]]:
    return list(zip(("low", "high"), ci or (None, None), strict=True))


def terminal(report: Mapping[str, Any]) -> str:
    """One line a point: score, win rate, KL, length and what is left of pretraining."""
    taught = "benchmark" if any(point["benchmark"] for point in report["points"]) else "text_loss"
    named = {"benchmark": "tasks", "text_loss": "text loss"}[taught]
    header = [
        "model",
        "seeds",
        f"{report['judge']} score",
        "reward model",
        "win rate against SFT [95 %]",
        "KL",
        "tokens",
    ]
    rows = [[*header, named]]
    for point in report["points"]:
        won = point["wins_sft"]
        low, high = (100 * bound for bound in won["ci"]) if won else (0.0, 0.0)
        rows.append(
            [
                point["label"],
                str(point["seeds"]),
                _cell(point["judge"], "z.3f"),
                _cell(point["proxy"], "z.3f"),
                ""
                if won is None or point["method"] == "sft"
                else f"{100 * won['mean']:5.1f} % [{low:5.1f}, {high:5.1f}]",
                _cell(point["kl"], "z.2f"),
                _cell(point["tokens"], ".1f"),
                _cell(point[taught], ".1%" if taught == "benchmark" else ".3f"),
            ]
        )
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    lines = [
        "  ".join([row[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(row[1:], widths[1:], strict=True))])
        for row in rows
    ]
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(line.rstrip() for line in lines)


def _cell(found: Mapping[str, Any] | None, form: str) -> str:
    return "-" if found is None else format(found["mean"], form)

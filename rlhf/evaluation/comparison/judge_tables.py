"""How a comparison shows what its verdicts say besides win rates: agreement of judges, equal length, ratings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any


def sentences(report: Mapping[str, Any]) -> list[str]:
    """How far each two judges agree, for a terminal; [] with one judge."""
    return [
        f"The {' and '.join(map(_title, pair['judges']))} judges agree on {100 * pair['agreement']:.0f} % of "
        f"{pair['n']} verdicts{_kappa(pair)}."
        for pair in report["agreement"].get("pairs", [])
    ]


def _title(judge: str) -> str:
    return judge.replace("_", " ")


def _kappa(pair: Mapping[str, Any]) -> str:
    if pair["kappa"] is None:
        return ""
    low, high = pair["kappa_ci"]
    return f" (Cohen's kappa {pair['kappa']:.2f} [{low:.2f}, {high:.2f}])"


def html(report: Mapping[str, Any], names: Sequence[str]) -> str:
    """A section of the page; `names` are its candidates in order."""
    parts = ["<h2>How far to trust the verdicts</h2>"]
    rows = []
    elo = {rating["candidate"]: rating for rating in report["ratings"]}
    for name in names:
        candidate = report["candidates"][name]
        if name != report["baseline"]:
            rows.append([escape(name), _rate(candidate), _equal_length(candidate), *([_elo(elo[name])] if elo else [])])
        elif elo:
            rows.append([escape(name), "<small>baseline</small>", "<small>baseline</small>", _elo(elo[name])])
    header = ["candidate", "win rate", "at equal length", *(["Elo over the<br>baseline"] if elo else [])]
    parts.append(_table(header, rows))
    pairs = report["agreement"].get("pairs", [])
    if pairs:
        header = ["judges", "verdicts", "alike", "alike where<br>neither ties", "Cohen's kappa"]
        cells = [
            [
                escape(" and ".join(map(_title, pair["judges"]))),
                str(pair["n"]),
                _percent(pair, "agreement"),
                _percent(pair, "decided_agreement"),
                _number(pair, "kappa"),
            ]
            for pair in pairs
        ]
        parts.append(_table(header, cells))
        alpha = report["agreement"]
        if alpha["alpha"] is not None and len(report["units"]) > 2:
            parts.append(f'<p class="note">Krippendorff\'s alpha over all judges: {_number(alpha, "alpha")}.</p>')
    return "\n".join(parts)


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    head = "".join(f"<th>{cell}</th>" for cell in header)
    body = "\n".join("<tr>" + "".join(f"<td>{cell}</td>" for cell in row) + "</tr>" for row in rows)
    return f'<div class="scroll"><table><thead><tr>{head}</tr></thead><tbody>\n{body}\n</tbody></table></div>'


def _rate(candidate: Mapping[str, Any]) -> str:
    return _percent(candidate, "win_rate")


def _equal_length(candidate: Mapping[str, Any]) -> str:
    if candidate["length_controlled_win_rate"] is None:
        return f"<small>{escape(candidate['length_controlled_win_rate_remark'] or '')}</small>"
    return _percent(candidate, "length_controlled_win_rate")


def _percent(numbers: Mapping[str, Any], name: str) -> str:
    value, ci = numbers[name], numbers[f"{name}_ci"]
    if value is None:
        return "–"
    bounds = "" if ci is None else f" <small>[{100 * ci[0]:.1f}, {100 * ci[1]:.1f}]</small>"
    return f"{100 * value:.1f} %{bounds}"


def _number(numbers: Mapping[str, Any], name: str) -> str:
    if numbers[name] is None:
        return "–"
    low, high = numbers[f"{name}_ci"]
    return f"{numbers[name]:.2f} <small>[{low:.2f}, {high:.2f}]</small>"


def _elo(rating: Mapping[str, Any]) -> str:
    if rating["elo"] is None:
        return f"<small>{escape(rating['remark'] or '')}</small>"
    low, high = ("∞" if bound is None else f"{bound:.0f}" for bound in rating["elo_ci"])
    return f"{rating['elo']:.0f} <small>[{'−' if low == '∞' else ''}{low}, {high}]</small>"

"""The report of published verdicts in words and tables, for the terminal and the page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.evaluation.published.verdicts import UNNAMED


def statement(report: Mapping[str, Any]) -> str:
    """The answer in one sentence."""
    if report["win_rate"] is not None:
        told = f"{report['model']} wins {interval_text(report, 'win_rate')} of {report['n']:,} comparisons with "
        told += f"{report['baseline']}, draws as half"
        if report.get("length_controlled_win_rate") is not None:
            told += f"; at equal length {interval_text(report, 'length_controlled_win_rate')}"
        return told + "."
    counted = f"{report['n']:,} verdicts on {len(report['pairs'])} pairs of models"
    if "ratings" in report:
        best = report["ratings"]["models"][0]
        if best["elo"] is None:
            return f"{counted}: {best['model']} is ahead of all, {best['remark']}."
        against = f" above {report['ratings']['reference']}" if best["model"] != report["ratings"]["reference"] else ""
        return f"{counted}: {best['model']} is rated highest, {elo_text(best)} Elo{against}."
    return f"{counted}."


def remarks(report: Mapping[str, Any]) -> list[str]:
    """What one must know to read the numbers right."""
    told = []
    all_numbers = report.get("pairs", [report])
    if any({numbers["baseline"], numbers["model"]} & set(UNNAMED) for numbers in all_numbers):
        told.append("Where the file names no generator, the model is called output_1 or output_2.")
    if any(numbers.get("prompts", 0) < numbers["n"] for numbers in all_numbers):
        told.append(
            "Some prompts have several verdicts. The standard error takes all as independent, as AlpacaEval's does; "
            "intervals draw a prompt's verdicts together."
        )
    for numbers in all_numbers:
        who = f"{numbers['model']} against {numbers['baseline']}"
        if numbers.get("length_controlled_remark"):
            told.append(f"{who}: no regression on length, for {numbers['length_controlled_remark']}.")
        if 0 < numbers.get("length_controlled_n", 0) < numbers["n"]:
            told.append(
                f"{who}: the win rate at equal length is over {numbers['length_controlled_n']:,} verdicts, those with "
                "both outputs beside them."
            )
    if "ratings" in report:
        told += [
            f"{model['model']} has no rating: {model['remark']}."
            for model in report["ratings"]["models"]
            if model["rating"] is None
        ]
    if "agreement" in report and not report["agreement"]["pairs"]:
        told.append("No two judges gave a verdict on the same comparison, so there is no agreement to measure.")
    return told


def interval_text(numbers: Mapping[str, Any], name: str) -> str:
    """26.46 % [23.7, 29.8], or the number alone where it has no interval; published numbers have two decimals."""
    value, ci = numbers.get(name), numbers.get(f"{name}_ci")
    if value is None:
        return "–"
    return f"{value:.2f} %" + (f" [{ci[0]:.1f}, {ci[1]:.1f}]" if ci else "")


def coefficient_text(numbers: Mapping[str, Any], name: str) -> str:
    """0.65 [0.60, 0.70], for kappa and alpha."""
    value, ci = numbers.get(name), numbers.get(f"{name}_ci")
    return "–" if value is None or ci is None else f"{value:z.2f} [{ci[0]:z.2f}, {ci[1]:z.2f}]"


def elo_text(model: Mapping[str, Any]) -> str:
    """+123 [80, 170]; an open bound is a dash."""
    if model["elo"] is None:
        return "–"
    low, high = ("–" if bound is None else f"{bound:z.0f}" for bound in model["elo_ci"])
    return f"{model['elo']:+z.0f} [{low}, {high}]"


def tables(report: Mapping[str, Any]) -> list[tuple[str, list[list[str]]]]:
    """Title and rows of each table of the report, the first row its heading."""
    pairs = report.get("pairs", [report])
    columns = ["model", "baseline", "verdicts", "draws", "no verdict", "win rate", "standard error", "at equal length"]
    columns += ["length", "baseline's"]
    rows = [columns]
    for numbers in pairs:
        error = numbers["standard_error"]
        rows.append(
            [
                numbers["model"],
                numbers["baseline"],
                f"{numbers['n']:,}",
                str(numbers["draws"]),
                str(numbers["without_verdict"]),
                interval_text(numbers, "win_rate"),
                "–" if error is None else f"{error:.2f}",
                interval_text(numbers, "length_controlled_win_rate"),
                *(f"{numbers[key]:,.0f}" if key in numbers else "–" for key in ("mean_length", "baseline_mean_length")),
            ]
        )
    found = [("Win rates", rows)]
    if "datasets" in report:
        rows = [[name, f"{of['n']:,}", interval_text(of, "win_rate")] for name, of in report["datasets"].items()]
        found.append(("By dataset", [["dataset", "verdicts", "win rate"], *rows]))
    if "ratings" in report:
        heading = ["model", "Elo", "comparisons"]
        rows = [[one["model"], elo_text(one), f"{one['n']:,}"] for one in report["ratings"]["models"]]
        found.append((f"Bradley-Terry ratings, {report['ratings']['reference']} at 0", [heading, *rows]))
    if "agreement" in report and report["agreement"]["pairs"]:
        heading = ["judges", "comparisons", "kappa", "same verdict", "same where neither ties"]
        rows = [
            [
                " / ".join(name or "unnamed" for name in one["judges"]),
                f"{one['n']:,}",
                coefficient_text(one, "kappa"),
                interval_text(one, "agreement"),
                interval_text(one, "decided_agreement"),
            ]
            for one in report["agreement"]["pairs"]
        ]
        if len(report["agreement"]["judges"]) > 2:
            alpha = coefficient_text(report["agreement"], "alpha")
            rows.append([f"all, Krippendorff's alpha {alpha}", f"{report['agreement']['n']:,}", "", "", ""])
        found.append(("Agreement of judges", [heading, *rows]))
    bias = report.get("position_bias")
    if bias is not None:
        heading = ["shown first and won", "verdicts", "p", "same winner in both orders"]
        consistent = f"{interval_text(bias, 'consistent')} of {bias['consistent_n']:,}"
        row = [interval_text(bias, "first_shown"), f"{bias['n']:,}", f"{bias['p_value']:.3g}", consistent]
        found.append(("Position bias", [heading, row]))
    return found


def text_table(report: Mapping[str, Any]) -> str:
    """What the terminal shows."""
    lines = []
    if report["win_rate"] is not None:
        error = "unknown" if report["standard_error"] is None else f"{report['standard_error']:.2f}"
        lines.append(
            f"win rate of the model under test: {report['win_rate']:.2f} %, standard error {error}, over "
            f"{report['n']:,} verdicts, {report['draws']} of them draws; {report['without_verdict']} without a verdict"
        )
    for title, rows in tables(report):
        widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
        lines += ["", title]
        lines += [
            "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
        ]
    return "\n".join([*lines, "", report["statement"], *report["remarks"]]).lstrip("\n")

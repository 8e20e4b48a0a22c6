from __future__ import annotations

import csv
import io
from dataclasses import replace
from html import escape
from typing import Any

import numpy as np
import pytest

from rlhf.evaluation.pages.html import Made
from rlhf.evaluation.sweeps import marks, page, tables
from rlhf.evaluation.sweeps.claims import claims, statement
from rlhf.evaluation.sweeps.plots import figures
from rlhf.evaluation.sweeps.points import Value, value
from rlhf.evaluation.sweeps.summary import Measured, summarise
from tests.support.measured import NOISE, sizes, study

MADE = Made("python -m rlhf stage=report", "seed: 0", {"python": "3"}, {"source": "x"}, {})


def report_of(measured: Measured) -> dict[str, Any]:
    found = claims(measured)
    return {
        **summarise(measured, wanted_kl=[], unfinished=[]),
        "statement": statement(measured, found),
        "claims": [claim.json() for claim in found],
        "remarks": ["a remark"],
        "bootstrap_samples": 200,
    }


def rows(report: dict[str, Any], text: str) -> list[dict[str, Any]]:
    answer = {"response": text, "tokens": 3, "ended": True, "kl": 0.1, "scores": {"judge": 0.5}, "verdicts": {}}
    labels = [point["label"] for point in report["points"]][:3]
    return [{"messages": [{"role": "user", "content": text}], "task": "", "candidates": dict.fromkeys(labels, answer)}]


def test_page_answers_first_and_fetches_nothing() -> None:
    report = report_of(study())
    hostile = "<script>alert(1)</script>"
    html = page.render(report, figures(study()), rows(report, hostile), MADE, {"sft": "runs/sft"}, side_by_side=3)
    answer, first_claim, table, figure, samples = (
        html.index(part)
        for part in (escape(report["statement"]), "Does PPO beat", "Every setting", "<figure>", "Samples side by side")
    )
    assert answer < first_claim < table < figure < samples
    assert "src=" not in html.replace('src="data:', "")
    assert hostile not in html
    for section in ("at equal KL", "Best-of-n", "Fitted curves", "How it was made", "a remark"):
        assert section in html


def test_figures_are_those_that_the_points_allow() -> None:
    one, several = ([figure.title for figure in figures(made)] for made in (study(), sizes()))
    for title in (
        "Gold score against square root of KL",
        "What was optimised, and what it stands for",
        "KL against its coefficient",
        "Length against KL",
        "Held-out task accuracy against ppo.ptx.coef",
    ):
        assert title in one
    assert "Win rate by size and method" not in one
    assert several[0] == "Win rate by size and method"
    assert not any("square root of KL" in title for title in several)
    assert len(set(one)) == len(one)


def test_tables_hold_every_number_as_it_is() -> None:
    report = report_of(study())
    read = list(csv.DictReader(io.StringIO(tables.csv_text(tables.points(report)))))
    assert [row["label"] for row in read] == [point["label"] for point in report["points"]]
    assert float(read[2]["kl"]) == report["points"][2]["kl"]["mean"]
    assert float(read[2]["wins_sft_low"]) == report["points"][2]["wins_sft"]["ci"][0]
    assert read[0]["kl_coef"] == ""
    assert len(tables.best_of_n(report)) == 7
    assert {row["curve"] for row in tables.matched_kl(report)} == {"ppo", "best-of-n"}
    fits = tables.fits(report)
    assert fits[0]["peak_kl"] == pytest.approx(7.39, abs=0.01)
    assert fits[0]["peak_kl_low"] <= fits[0]["peak_kl"] <= fits[0]["peak_kl_high"]
    shown = tables.terminal(report)
    assert len(shown.splitlines()) == 2 + len(report["points"])
    assert "41.0%" in shown


def test_an_interval_that_reaches_0_stays_on_a_logarithmic_axis(
    recwarn: pytest.WarningsRecorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = study()
    kl = np.tile([9.3, -8.7], len(NOISE) // 2)  # 0.3 on average, and it might be 0
    (near,) = [point for point in made.points if point.label == "ppo KL 0.8"]
    moved = replace(near, per_prompt={**near.per_prompt, "kl": (kl, kl)})
    made = replace(made, points=[moved if point is near else point for point in made.points])
    shown: list[Value] = []
    drawn = marks.mark

    def watched(axes: Any, look: Any, x: float, y: Value, **more: Any) -> None:
        shown.append(y)
        drawn(axes, look, x, y, **more)

    monkeypatch.setattr(marks, "mark", watched)
    (figure,) = [figure for figure in figures(made) if figure.title == "KL against its coefficient"]
    assert "What is 0 or less ends at the foot." in figure.caption
    assert [str(warning.message) for warning in recwarn if "matplotlib" in str(warning.filename)] == []
    (of_point,) = [y for y in shown if y.high == pytest.approx(value([kl, kl], made.bootstrap).high)]
    assert 0 < of_point.low <= of_point.mean

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from typing import Any

from rlhf.evaluation.comparison.curves import Curves, series
from rlhf.evaluation.comparison.plots import figures
from rlhf.evaluation.pages.figures import styles


def titles(comparison: Any, curves: Curves | None = None) -> list[str]:
    return [figure.title for figure in figures(comparison.report, curves or comparison.curves)]


def test_a_chain_gets_its_figures_and_no_sweep(chain: Any) -> None:
    assert titles(chain) == [
        "Win rate against sft",
        "Win rate by task family",
        "Reward-model score over PPO",
        "Gold score over PPO",
        "KL from SFT over PPO",
        "Response length over PPO",
        "SFT loss",
        "Reward-model loss",
        "Reward-model accuracy",
    ]


def test_several_ppo_runs_are_drawn_against_kl_by_every_judge(sweep: Any) -> None:
    drawn = titles(sweep)
    for judge in ("Gold", "Reward model"):
        assert f"{judge} against KL" in drawn
        assert f"{judge} against square root of KL" in drawn


def test_without_curves_only_the_win_rates_are_drawn(chain: Any) -> None:
    assert titles(chain, Curves()) == ["Win rate against sft", "Win rate by task family"]


def test_every_figure_is_well_formed_svg_that_loads_nothing(chain: Any) -> None:
    for figure in figures(chain.report, chain.curves):
        ElementTree.fromstring(figure.svg)
        assert 'href="http' not in figure.svg
        assert figure.caption


def test_the_same_numbers_give_the_same_bytes(chain: Any) -> None:
    assert figures(chain.report, Curves()) == figures(chain.report, Curves())


def test_candidates_differ_in_colour_and_in_marker_and_keep_theirs() -> None:
    few, many = styles(["base", "sft", "ppo"]), styles(["base", "sft", "ppo", "a", "b", "c", "d"])
    assert all(few[name] == many[name] for name in few)
    assert len({look.colour for look in many.values()}) == 7
    assert len({look.marker for look in many.values()}) == 7


def test_a_best_of_n_looks_alike_in_a_comparison_and_in_the_report_of_a_sweep() -> None:
    looks = styles(["base", "base-few-shot", "sft", "sft-best-of-4", "sft-best-of-16", "ppo"])
    assert looks["sft-best-of-4"] == styles(["best-of-n"])["best-of-n"]
    assert looks["base-few-shot"] == styles(["base-few-shot"])["base-few-shot"]
    assert len(set(looks.values())) == len(looks)


def test_a_name_with_dollars_is_not_read_as_mathematics(chain: Any) -> None:
    report = dict(chain.report)
    report["candidates"] = {**report["candidates"], "p$_{po$": report["candidates"]["ppo"]}
    assert len(figures(report, Curves())) == 2


def test_a_series_leaves_out_missing_and_null_values() -> None:
    rows = [{"step": 1, "a/b": 2.0}, {"step": 2, "a/b": None}, {"step": 3}, {"step": 4, "a/b": 0.0}]
    assert series(rows, "a/b") == ([1.0, 4.0], [2.0, 0.0])


def test_a_judge_without_scores_is_in_the_win_rates_and_not_against_kl(judged_sweep: Any) -> None:
    drawn = figures(judged_sweep.report, judged_sweep.curves)
    assert drawn[0].caption.endswith("Filled: gold. Hollow, from the top down: reward model, llm.")
    assert not [figure.title for figure in drawn if figure.title.startswith("Llm")]
    assert [figure.title for figure in drawn if "against KL" in figure.title] == [
        "Gold against KL",
        "Reward model against KL",
    ]


def test_what_has_no_verdict_has_no_mark(judged: Any) -> None:
    assert judged.report["candidates"]["ppo"]["tasks"]["sorting"]["win_rate"] is None
    [_, by_task, *_] = figures(judged.report, Curves())
    assert "llm judge" in by_task.caption
    nothing = {**judged.report, "candidates": {**judged.report["candidates"]}}
    ppo = {**nothing["candidates"]["ppo"], "win_rate": None, "win_rate_ci": None}
    ppo["judges"] = {**ppo["judges"], "llm": {**ppo["judges"]["llm"], "win_rate": None, "win_rate_ci": None}}
    ppo["tasks"] = {task: {**of, "win_rate": None, "win_rate_ci": None} for task, of in ppo["tasks"].items()}
    nothing["candidates"]["ppo"] = ppo
    assert len(figures(nothing, Curves())) == 2

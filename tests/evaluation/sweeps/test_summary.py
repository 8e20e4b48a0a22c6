from __future__ import annotations

import json
import math

import numpy as np
import pytest

from rlhf.evaluation.sweeps.summary import at_equal_kl, best_of_n_fit, by_size, curves, rl_fit, summarise
from rlhf.runtime.files import finite
from tests.support.measured import KLS, SFT, gold, sizes, study


def test_fit_of_a_sweep_finds_the_peak_that_made_it() -> None:
    fit = rl_fit(study(), [f"ppo KL {coef:g}" for coef in KLS], "judge")
    assert fit is not None
    assert (fit.alpha, fit.beta) == (pytest.approx(0.3), pytest.approx(0.15))
    assert fit.peak_kl == pytest.approx(math.exp(2))
    best = best_of_n_fit(study().best_of_n[0])
    assert best is not None
    assert (best.alpha, best.beta) == (pytest.approx(0.1), pytest.approx(0.02))


def test_lines_begin_at_the_sft_model_and_share_their_prompts() -> None:
    ppo, best = curves(study(), "m")
    assert (ppo.name, best.name) == ("ppo", "best-of-n")
    assert ppo.kl[0] == 0
    assert np.mean(ppo.judge[0]) == pytest.approx(np.mean(best.judge[0]), abs=1e-12)
    assert {len(array) for line in (ppo, best) for arrays in line.judge for array in arrays} == {150}


def test_equal_kl_compares_at_the_same_distance() -> None:
    (row,) = at_equal_kl(study(), "m", [1.0])
    own = study().points[4].per_prompt["judge"][0][:150].mean() + 0.002
    assert row["curves"]["ppo"]["mean"] == pytest.approx(own)
    gap = row["over_best_of_n"]["ppo"]
    # Between two measured n best-of-n is interpolated, hence not its formula to the last digit.
    assert gap["mean"] == pytest.approx(gold(1.0) - (SFT + 0.1 - 0.02), abs=0.002)
    assert gap["ci"][0] < gap["mean"] < gap["ci"][1]
    assert all(
        row["kl"] <= best_kl for row in at_equal_kl(study(), "m", []) for best_kl in [study().best_of_n[0].kl[-1]]
    )
    assert at_equal_kl(study(), "m", [1000.0]) == []


def test_figure_one_takes_the_setting_that_the_sizes_share() -> None:
    found = by_size(sizes())
    assert {method: [point.base for point in points] for method, points in found.items()} == {
        method: ["s", "l"] for method in ("base", "sft", "ppo", "ppo-ptx")
    }


def test_report_is_json_with_a_number_for_every_point() -> None:
    report = summarise(study(), wanted_kl=[], unfinished=["x"])
    json.dumps(finite(report), allow_nan=False)
    assert [point["label"] for point in report["points"]][:3] == ["base", "sft", "ppo KL 0"]
    assert report["points"][2]["judge"]["mean"] == pytest.approx(gold(40.0), abs=0.01)
    assert report["points"][2]["judge"]["seeds"] == 2
    assert report["points"][0]["benchmark"]["mean"] == 0.9
    assert [row["n"] for row in report["best_of_n"]["m"]] == [1, 2, 4, 8, 16, 32, 64]
    assert {(fit["form"], fit["quantity"]) for fit in report["fits"]} == {
        ("rl", "judge"),
        ("rl", "proxy"),
        ("best_of_n", "judge"),
    }
    assert report["unfinished"] == ["x"]

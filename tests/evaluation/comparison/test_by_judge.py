from __future__ import annotations

import math

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa, to_table

from rlhf.evaluation.comparison.by_judge import agreement, at_equal_length, strengths
from rlhf.evaluation.statistics.win_rates import Bootstrap

RNG = np.random.default_rng(0)
PROMPTS = 200
BOOTSTRAP = Bootstrap(PROMPTS, samples=300, seed=0)


def noisy(wins: np.ndarray, share: float) -> np.ndarray:
    return np.where(RNG.random(len(wins)) < share, RNG.choice([0.0, 0.5, 1.0], len(wins)), wins)


def test_agreement_is_kappa_over_all_candidates_verdicts() -> None:
    gold = {name: RNG.choice([0.0, 0.5, 1.0], PROMPTS) for name in ("base", "ppo")}
    other = {name: noisy(wins, 0.4) for name, wins in gold.items()}
    found = agreement({"gold": gold, "reward_model": other}, BOOTSTRAP)
    (pair,) = found["pairs"]
    one, two = (np.concatenate(list(by.values())) for by in (gold, other))
    table, _ = to_table(np.stack([one * 2, two * 2], axis=1).astype(int))
    assert pair["judges"] == ["gold", "reward_model"]
    assert (pair["n"], pair["agreement"]) == (2 * PROMPTS, pytest.approx(float((one == two).mean())))
    assert pair["kappa"] == pytest.approx(cohens_kappa(table).kappa)
    assert pair["kappa_ci"][0] < pair["kappa"] < pair["kappa_ci"][1]
    assert 0 < found["alpha"] < 1


def test_one_judge_agrees_with_nobody() -> None:
    assert agreement({"gold": {"ppo": np.ones(PROMPTS)}}, BOOTSTRAP) == {}


def test_at_equal_length_a_judge_that_likes_length_is_seen_through() -> None:
    lengths = RNG.integers(10, 200, PROMPTS)
    texts, others = ["x" * int(n) for n in lengths], ["y" * 60] * PROMPTS
    chance = 1 / (1 + np.exp(-2.0 * np.tanh((lengths - 60) / (lengths - 60).std(ddof=1))))
    wins = (RNG.random(PROMPTS) < chance).astype(float)
    found = at_equal_length(wins, texts, others)
    assert wins.mean() > 0.58
    low, high = found["length_controlled_win_rate_ci"]
    assert low < 0.5 < high
    assert found["length_controlled_win_rate"] < wins.mean()


def test_verdicts_that_are_missing_are_left_out_and_none_at_all_is_said() -> None:
    wins = np.array([1.0, 0.0, 1.0, np.nan])
    found = at_equal_length(wins, ["aa", "bb", "cc", "d" * 99], ["xx", "yy", "zz", "w"])
    assert found["length_controlled_win_rate"] == pytest.approx(2 / 3)
    nothing = at_equal_length(np.array([np.nan]), ["a"], ["b"])
    assert nothing["length_controlled_win_rate"] is None
    assert nothing["length_controlled_win_rate_remark"] == "there is no verdict"


def test_strengths_come_from_the_verdicts_on_every_two() -> None:
    true = {"sft": 0.0, "base": -1.0, "ppo": 1.0}
    scores = {name: list(strength + RNG.gumbel(size=PROMPTS)) for name, strength in true.items()}
    wins = {name: (np.array(scores[name]) > np.array(scores["sft"])) * 1.0 for name in ("base", "ppo")}
    found = strengths(scores, wins, baseline="sft", tie_margin=0.0, bootstrap=BOOTSTRAP)
    assert [rating["candidate"] for rating in found] == ["ppo", "sft", "base"]
    assert {rating["n"] for rating in found} == {2 * PROMPTS}
    for rating in found:
        # Gumbel noise makes the odds exp of the difference, so Bradley-Terry is the truth.
        low, high = rating["elo_ci"]
        assert low - 25 <= true[rating["candidate"]] * 400 / math.log(10) <= high + 25


def test_a_judge_that_compared_with_the_baseline_alone_rates_by_that() -> None:
    wins = {"ppo": np.where(np.arange(PROMPTS) < 150, 1.0, 0.0), "base": np.where(np.arange(PROMPTS) < 50, 1.0, np.nan)}
    found = strengths(None, wins, baseline="sft", tie_margin=0.0, bootstrap=BOOTSTRAP)
    rating = {row["candidate"]: row for row in found}
    assert rating["ppo"]["elo"] == pytest.approx(400 * math.log10(3))
    assert rating["base"]["elo"] is None
    assert rating["base"]["remark"]
    assert rating["base"]["n"] == 50


def test_two_candidates_need_no_rating() -> None:
    assert strengths(None, {"ppo": np.ones(PROMPTS)}, baseline="sft", tie_margin=0.0, bootstrap=BOOTSTRAP) == []

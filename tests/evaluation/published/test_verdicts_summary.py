from __future__ import annotations

import itertools
import math
import statistics
from pathlib import Path

import numpy as np
import pytest
from statsmodels.stats.inter_rater import cohens_kappa

from rlhf.evaluation.published.verdicts import read
from rlhf.evaluation.statistics.length_control import length_controlled
from rlhf.evaluation.statistics.win_rates import Bootstrap
from tests.support.published_rows import both_orders, league, liking_length, report, verdict

SHARED = Path("/work/shared/data")
needs_shared = pytest.mark.skipif(not SHARED.exists(), reason="the real files are not on this machine")


def test_a_draw_is_half_a_win_and_what_has_no_verdict_counts_nowhere_else() -> None:
    wins = [0, 1, 1, 0.5, 0.5, 0.25]
    found = report([verdict(won, prompt) for prompt, won in enumerate([*wins, None])])
    assert found["win_rate"] == pytest.approx(100 * statistics.mean(wins))
    assert found["standard_error"] == pytest.approx(100 * statistics.stdev(wins) / math.sqrt(6))
    assert (found["n"], found["draws"], found["without_verdict"], found["prompts"]) == (6, 2, 1, 6)
    bounds = Bootstrap(6, samples=200, seed=0).estimate(wins).ci
    assert found["win_rate_ci"] == pytest.approx([100 * bound for bound in bounds])
    assert (found["model"], found["baseline"]) == ("ours", "base")


def test_one_verdict_has_no_standard_error() -> None:
    found = report([verdict(1)])
    assert (found["win_rate"], found["standard_error"]) == (100, None)
    assert found["win_rate_ci"] == pytest.approx([20.65, 100], abs=0.01)  # Wilson: one win is no certainty


def test_the_other_order_of_a_pair_is_turned_and_its_lengths_too() -> None:
    verdicts = [
        verdict(1, 0, outputs=("12345", "123")),
        verdict(1, 1, generators=("ours", "base"), outputs=("1234567", "1")),
        verdict(0.8, 2, outputs=("12345", "123")),
    ]
    found = report(verdicts)
    assert found["win_rate"] == pytest.approx(100 * (1 + 0 + 0.8) / 3)
    assert found["mean_length"] == pytest.approx((3 + 7 + 3) / 3)
    assert found["baseline_mean_length"] == pytest.approx((5 + 1 + 5) / 3)
    assert "pairs" not in found


def test_several_verdicts_on_a_prompt_are_drawn_together_and_a_remark_says_so() -> None:
    wins = np.random.default_rng(0).integers(0, 2, size=80).astype(float).tolist()
    none = {"outputs": (None, None)}
    once = report([verdict(won, prompt, **none) for prompt, won in enumerate(wins)])
    thrice = report([verdict(won, prompt, **none) for prompt, won in enumerate(wins) for _ in range(3)])
    assert thrice["win_rate_ci"] == pytest.approx(once["win_rate_ci"])
    assert (thrice["n"], thrice["prompts"]) == (240, 80)
    assert once["remarks"] == []
    assert thrice["remarks"][0].startswith("Some prompts have several verdicts.")


def test_length_is_counted_in_characters_and_its_numbers_are_length_controls() -> None:
    verdicts = liking_length()
    found = report(verdicts)
    won = [one.won for one in verdicts]
    ours, theirs = ([len(one.outputs[place] or "") for one in verdicts] for place in (1, 0))
    expected = length_controlled(won, ours, theirs, prompts=range(200))
    assert expected.win_rate is not None
    assert expected.low is not None
    assert expected.high is not None
    assert found["length_controlled_win_rate"] == pytest.approx(100 * expected.win_rate)
    assert found["length_controlled_win_rate_ci"] == pytest.approx([100 * expected.low, 100 * expected.high])
    assert found["length_coef"] == pytest.approx(expected.length_coef)
    assert (found["mean_length"], found["baseline_mean_length"]) == (np.mean(ours), np.mean(theirs))


def test_bins_of_length_hold_every_verdict_once_in_order() -> None:
    verdicts = liking_length()
    bins = report(verdicts)["length_bins"]
    assert [one["n"] for one in bins] == [20] * 10
    assert all(one["highest"] <= other["lowest"] for one, other in itertools.pairwise(bins))
    assert sum(one["win_rate"] for one in bins) / 10 == pytest.approx(100 * np.mean([one.won for one in verdicts]))
    longest = sorted(verdicts, key=lambda one: len(one.outputs[1] or "") - len(one.outputs[0] or ""))[-20:]
    assert bins[-1]["win_rate"] == pytest.approx(100 * np.mean([one.won for one in longest]))
    assert report(verdicts[:39])["length_bins"] == []


def test_verdicts_without_outputs_have_no_length_and_a_remark_counts_them() -> None:
    without = [verdict(0.5, f"without {i}", outputs=("a", None)) for i in range(3)]
    assert "mean_length" not in report(without)
    found = report([*liking_length(), *without])
    assert (found["n"], found["length_controlled_n"]) == (203, 200)
    assert found["remarks"] == [
        "ours against base: the win rate at equal length is over 200 verdicts, those with both outputs beside them."
    ]


def test_datasets_have_the_win_rate_of_their_own_verdicts() -> None:
    verdicts = [verdict(won, i, dataset=name) for i, (won, name) in enumerate([(1, "b"), (0, "b"), (1, "a"), (0, "")])]
    found = report(verdicts)["datasets"]
    assert {name: (numbers["win_rate"], numbers["n"]) for name, numbers in found.items()} == {
        "a": (100, 1),
        "b": (50, 2),
    }
    assert "datasets" not in report([verdict(1)])


def test_position_bias_is_over_comparisons_seen_in_both_orders_alone() -> None:
    verdicts = [*both_orders(0, 1, 1), *both_orders(1, 1, 0), *both_orders(2, 1, 0.5), verdict(0, 3), verdict(0, 4)]
    found = report(verdicts)["position_bias"]
    assert (found["first_shown"], found["n"]) == (pytest.approx(80), 5)  # 4 of 5 decided; prompts 3 and 4 do not count
    assert (found["consistent"], found["consistent_n"]) == (50, 2)
    assert "position_bias" not in report([verdict(1, 0), verdict(0, 1, generators=("ours", "base"))])


def test_without_names_the_other_order_is_known_by_the_outputs() -> None:
    unnamed = ("output_1", "output_2")
    found = report(
        [
            verdict(0, 0, generators=unnamed, outputs=("a", "b")),
            verdict(0, 0, generators=unnamed, outputs=("b", "a")),
        ]
    )
    assert "position_bias" not in found  # the names stay with the places, so nothing says who is who
    assert found["remarks"][0] == "Where the file names no generator, the model is called output_1 or output_2."


def test_judges_are_compared_on_the_same_outputs_in_whichever_order_they_saw_them() -> None:
    generator = np.random.default_rng(2)
    ours = generator.integers(0, 3, size=120) / 2
    theirs = np.where(generator.random(120) < 0.7, ours, generator.integers(0, 3, size=120) / 2)
    verdicts = [verdict(won, i) for i, won in enumerate(ours)]
    for i, won in enumerate(theirs):
        if i % 2:
            verdicts.append(verdict(won, i, judge="human"))
        else:
            turned = {"generators": ("ours", "base"), "outputs": ("other one", "one")}
            verdicts.append(verdict(1 - won, i, judge="human", **turned))
    found = report(verdicts)["agreement"]
    table = np.zeros((3, 3))
    np.add.at(table, ((2 * ours).astype(int), (2 * theirs).astype(int)), 1)
    (pair,) = found["pairs"]
    assert (pair["judges"], pair["n"], found["n"]) == (["gpt4", "human"], 120, 120)
    assert pair["kappa"] == pytest.approx(cohens_kappa(table).kappa)
    assert pair["agreement"] == pytest.approx(100 * np.trace(table) / 120)
    corners = table[::2, ::2]
    assert pair["decided_agreement"] == pytest.approx(100 * np.trace(corners) / corners.sum())
    assert found["alpha_ci"][0] < found["alpha"] < found["alpha_ci"][1]
    assert "agreement" not in report([verdict(1, 0), verdict(0, 1)])


def test_judges_of_other_outputs_of_a_prompt_have_nothing_in_common() -> None:
    found = report([verdict(1), verdict(1, judge="human", outputs=("one", "a third"))])
    assert (found["agreement"]["pairs"], found["agreement"]["alpha"]) == ([], None)
    assert "No two judges gave a verdict on the same comparison" in found["remarks"][-1]


def test_several_pairs_have_numbers_each_and_none_in_common() -> None:
    found = report([*league(), verdict(None, generators=("base", "far"))])
    assert (found["win_rate"], found["standard_error"], found["n"], found["without_verdict"]) == (None, None, 120, 1)
    rates = {(one["baseline"], one["model"]): one["win_rate"] for one in found["pairs"]}
    assert rates == {("base", "sft"): 70, ("base", "ppo"): 85, ("sft", "ppo"): 70, ("base", "far"): None}
    assert found["statement"].startswith("120 verdicts on 4 pairs of models: ppo is rated highest, +298 [")


def test_three_models_have_ratings_with_the_usual_baseline_at_0() -> None:
    found = report(league())["ratings"]
    assert found["reference"] == "base"
    assert [model["model"] for model in found["models"]] == ["ppo", "sft", "base"]
    ppo, sft, base = found["models"]
    assert (base["elo"], base["elo_ci"], base["n"]) == (0, [0, 0], 80)
    # The data fit exactly: odds of 7/3 a step, so 49/9 over two, which is 85 % to within a thousandth.
    assert sft["elo"] == pytest.approx(400 * math.log10(7 / 3), abs=3)
    assert ppo["elo"] == pytest.approx(2 * sft["elo"], abs=3)
    assert ppo["elo_ci"][0] < ppo["elo"] < ppo["elo_ci"][1]
    assert ppo["rating"] == pytest.approx(ppo["elo"] * math.log(10) / 400)
    assert "ratings" not in report([verdict(1, 0), verdict(0, 1)])


def test_a_model_that_lost_everything_has_a_remark_in_place_of_a_rating() -> None:
    found = report([*league(), verdict(0, generators=("base", "weak"), outputs=("a", "b"))])
    assert found["ratings"]["models"][-1] | {"remark": None} == {
        "model": "weak",
        "rating": None,
        "rating_ci": [None, None],
        "elo": None,
        "elo_ci": [None, None],
        "n": 1,
        "remark": None,
    }
    assert "weak has no rating: it lost every comparison." in found["remarks"]


def test_a_model_against_itself_is_a_pair_like_others() -> None:
    found = report([verdict(0.5, i, generators=("base", "base"), outputs=("a", "a")) for i in range(4)])
    assert (found["win_rate"], found["model"], found["baseline"]) == (50, "base", "base")
    assert "ratings" not in found


@needs_shared
def test_the_published_win_rate_of_alpaca_comes_out() -> None:
    found = report(read(str(SHARED / "alpaca_eval" / "alpaca-7b.alpaca_eval_gpt4.annotations.json.gz")))
    assert round(found["win_rate"], 2) == 26.46
    assert round(found["standard_error"], 2) == 1.54
    assert (found["n"], found["draws"]) == (805, 16)
    assert sum(numbers["n"] for numbers in found["datasets"].values()) == 805
    assert found["length_coef"] > 1  # GPT-4 liked length, as the paper says

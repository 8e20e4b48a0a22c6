from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from rlhf.evaluation.comparison.answers import Answers
from rlhf.evaluation.comparison.summary import metrics, summarise
from rlhf.evaluation.comparison.text import ordered, text_table
from rlhf.evaluation.judges.judge import Verdicts

TASKS = ["sort", "sort", "add", "add"] * 10


def answers(gold: list[float], proxy: list[float], **changes: Any) -> Answers:
    n = len(gold)
    fields: dict[str, Any] = {
        "path": "somewhere",
        "texts": ["text"] * n,
        "tokens": [10] * n,
        "ended": [True] * n,
        "scores": {"gold": gold, "reward_model": proxy},
        "kl": [0.0] * n,
        "text_loss": None,
    }
    return Answers(**(fields | changes))


def compare(**candidates: Answers) -> dict[str, Any]:
    return summarise(
        candidates,
        TASKS,
        baseline="sft",
        judges={"gold": "gold score (0 to 1)", "reward_model": "reward-model score"},
        tie_margin=0.0,
        bootstrap_samples=300,
        seed=0,
    )


SFT = answers([0.5] * 40, [0.0] * 40)
PPO = answers([0.9, 0.1, 0.9, 0.9] * 10, [1.0] * 40, kl=[2.0, 4.0] * 20, tokens=[12] * 40)
BASE = answers([0.1] * 40, [-1.0] * 40, kl=[30.0] * 40)


def test_the_report_has_the_promised_keys_with_the_right_numbers() -> None:
    report = compare(base=BASE, sft=SFT, ppo=PPO)
    ppo = report["candidates"]["ppo"]
    assert ppo["win_rate"] == pytest.approx(0.75)
    assert 0.6 < ppo["win_rate_ci"][0] < 0.75 < ppo["win_rate_ci"][1] < 0.9
    assert ppo["gold_score"] == pytest.approx(0.7)
    assert ppo["kl"] == pytest.approx(3.0)
    assert ppo["mean_tokens"] == pytest.approx(12)
    assert ppo["judges"]["reward_model"]["win_rate"] == 1.0
    assert ppo["tasks"]["sort"]["win_rate"] == pytest.approx(0.5)
    assert ppo["tasks"]["add"]["win_rate"] == pytest.approx(1.0)
    assert ppo["tasks"]["add"]["prompts"] == 20
    assert (report["baseline"], report["judge"], report["prompts"]) == ("sft", "gold", 40)
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_the_baseline_wins_half_against_itself_with_no_interval() -> None:
    sft = compare(base=BASE, sft=SFT, ppo=PPO)["candidates"]["sft"]
    assert sft["win_rate"] == 0.5
    assert sft["win_rate_ci"] == [0.5, 0.5]


def test_the_statement_says_who_beats_whom_both_ways_round() -> None:
    said = compare(base=BASE, sft=SFT, ppo=PPO)["statement"]
    assert "ppo beats sft with a win rate of 75 %" in said
    assert "sft beats base with a win rate of 100 %" in said
    assert said.index("ppo beats") < said.index("sft beats base")


def test_a_difference_within_the_interval_is_not_called_a_win() -> None:
    close = answers([0.6, 0.4] * 19 + [0.6, 0.6], [0.0] * 40)
    assert "ppo and sft cannot be told apart" in compare(sft=SFT, ppo=close)["statement"]


def test_a_proxy_win_with_a_gold_loss_is_named_over_optimisation() -> None:
    hacked = answers([0.1] * 40, [5.0] * 40)
    [remark] = compare(sft=SFT, ppo=hacked)["remarks"]
    assert "over-optimised" in remark
    [remark] = compare(sft=SFT, base=hacked)["remarks"]
    assert "misjudges" in remark


def test_another_tokenizer_leaves_kl_null_and_says_so() -> None:
    report = compare(sft=SFT, other=answers([0.6] * 40, [0.0] * 40, kl=None))
    assert report["candidates"]["other"]["kl"] is None
    assert any("another tokenizer" in remark for remark in report["remarks"])
    assert "compare/other_kl" not in metrics(report)


def test_without_gold_the_reward_model_decides_and_gold_is_null() -> None:
    report = summarise(
        {"sft": SFT, "ppo": PPO}, TASKS, baseline="sft", judges={"reward_model": "reward-model score"}, tie_margin=0.0,
        bootstrap_samples=50, seed=0,
    )  # fmt: skip
    assert report["candidates"]["ppo"]["win_rate"] == 1.0
    assert report["candidates"]["ppo"]["gold_score"] is None


def test_manifest_metrics_name_the_candidate_and_skip_the_baselines_own_win_rate() -> None:
    flat = metrics(compare(base=BASE, sft=SFT, ppo=PPO))
    assert flat["compare/ppo_win_rate"] == pytest.approx(0.75)
    assert flat["compare/sft_gold_score"] == pytest.approx(0.5)
    assert "compare/sft_win_rate" not in flat


def test_the_terminal_table_is_aligned_and_in_the_chains_order() -> None:
    report = compare(ppo=PPO, sft=SFT, base=BASE)
    lines = text_table(report).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["base", "sft", "ppo"] == ordered(report)
    assert len({len(line) for line in lines}) == 1


def test_text_loss_is_a_column_where_a_candidate_has_one() -> None:
    assert "text loss" not in text_table(compare(sft=SFT, ppo=PPO))
    report = compare(sft=answers([0.5] * 40, [0.0] * 40, text_loss=0.9), ppo=PPO)
    lines = text_table(report).splitlines()
    assert [line.split()[-1] for line in lines[2:]] == ["0.900", "-"]
    assert metrics(report)["compare/sft_text_loss"] == 0.9
    assert "compare/ppo_text_loss" not in metrics(report)


def test_many_candidates_are_summed_up_by_the_best_of_them() -> None:
    better = answers([0.9] * 40, [0.0] * 40)
    said = compare(base=BASE, sft=SFT, ppo=PPO, a=BASE, b=better, c=BASE)["statement"]
    assert "of the 3 others b does best" in said
    assert said.count("beats") == 3


def test_a_sweep_is_led_by_the_job_that_does_best() -> None:
    better = answers([0.9] * 40, [0.0] * 40)
    jobs = {"ppo[ppo.kl.coef=0]": BASE, "ppo[ppo.kl.coef=0.2]": better, "ppo[ppo.kl.coef=0.8]": PPO}
    said = compare(base=BASE, sft=SFT, **jobs)["statement"]
    assert "held-out prompts, ppo[ppo.kl.coef=0.2] beats sft" in said


NAN = float("nan")


def compared(wins: list[float], **changes: Any) -> Verdicts:
    """Four verdicts, ten times over; what is not said is as of a judge that was read and asked twice each time."""
    fields: dict[str, Any] = {
        "wins": wins,
        "inconsistent": [False] * 4,
        "failures": [0] * 4,
        "first": [1] * 4,
        "decided": [2] * 4,
        "identical": [False] * 4,
    }
    return Verdicts(**{key: values * 10 for key, values in (fields | changes).items()})


def compare_by_llm(verdicts: Verdicts, judges: dict[str, str | None] | None = None) -> dict[str, Any]:
    itself = compared([0.5] * 4, first=[0] * 4, decided=[0] * 4, identical=[True] * 4)
    return summarise(
        {
            "sft": answers([0.5] * 40, [0.0] * 40, verdicts={"llm": itself}),
            "ppo": answers([0.9] * 40, [1.0] * 40, verdicts={"llm": verdicts}),
        },
        TASKS,
        baseline="sft",
        judges=judges or {"llm": None},
        tie_margin=0.0,
        bootstrap_samples=300,
        seed=0,
    )


def test_a_judge_that_compares_gives_rates_over_its_verdicts_and_no_score() -> None:
    verdicts = compared(
        [1.0, 0.5, 1.0, NAN],
        inconsistent=[False, True, False, False],
        failures=[0, 0, 0, 1],
        first=[1, 2, 1, 0],
        decided=[2, 2, 2, 0],
    )
    report = compare_by_llm(verdicts)
    ppo = report["candidates"]["ppo"]
    llm = ppo["judges"]["llm"]
    assert (llm["n"], llm["inconsistent"], llm["parse_failures"], llm["identical"]) == (30, 10, 10, 0)
    assert llm["win_rate"] == ppo["win_rate"] == pytest.approx(2.5 / 3)
    assert llm["win_rate_ci"][0] < 2.5 / 3 < llm["win_rate_ci"][1]
    assert llm["ties"] == pytest.approx(1 / 3)
    assert llm["position_bias"] == pytest.approx(4 / 6)
    assert llm["position_bias_ci"][0] < 4 / 6 < llm["position_bias_ci"][1]
    assert (llm["score"], llm["score_ci"], ppo["gold_score"]) == (None, None, None)
    assert ppo["tasks"]["sort"]["win_rate"] == pytest.approx(0.75)
    assert ppo["tasks"]["add"]["judges"]["llm"]["n"] == 10
    sft = report["candidates"]["sft"]["judges"]["llm"]
    assert (sft["win_rate_ci"], sft["identical"], sft["position_bias"]) == ([0.5, 0.5], 40, None)
    assert report["units"] == {"llm": None}
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_judge_without_any_verdict_leaves_nulls_and_says_so() -> None:
    nothing = compared([NAN] * 4, failures=[2] * 4, first=[0] * 4, decided=[0] * 4)
    report = compare_by_llm(nothing)
    ppo = report["candidates"]["ppo"]
    assert (ppo["win_rate"], ppo["win_rate_ci"], ppo["judges"]["llm"]["ties"]) == (None, None, None)
    assert ppo["tasks"]["add"]["win_rate"] is None
    assert "there is no verdict on ppo against sft" in report["statement"]
    assert "compare/ppo_win_rate" not in metrics(report)
    assert text_table(report).splitlines()[-1].split()[:2] == ["ppo", "-"]
    [remark] = report["remarks"]
    assert "no verdict on some of the 40 prompts: 40 for ppo" in remark
    assert json.loads(json.dumps(report, allow_nan=False)) == report


def test_a_judge_that_chooses_by_place_is_named() -> None:
    assert compare_by_llm(compared([1.0] * 4))["remarks"] == []
    by_place = compared([0.5] * 4, inconsistent=[True] * 4, first=[2] * 4)
    [remark] = compare_by_llm(by_place)["remarks"]
    assert "chooses by place" in remark
    assert "100 % for ppo" in remark


def test_judges_that_score_and_that_compare_stand_side_by_side() -> None:
    judges = {"gold": "gold score (0 to 1)", "llm": None}
    report = compare_by_llm(compared([0.0] * 4), judges)
    assert report["candidates"]["ppo"]["win_rate"] == 1.0  # the first judge's
    assert report["candidates"]["ppo"]["judges"]["gold"]["n"] == 40
    assert report["candidates"]["ppo"]["gold_score"] == pytest.approx(0.9)
    header, _, _, ppo = text_table(report).splitlines()
    assert header.index("win rate (gold)") < header.index("win rate (llm)") < header.index("gold score")
    assert header.count("score") == 1
    assert ppo.index("100.0 %") < ppo.index("0.0 % [") < ppo.index("0.900")


def about(method: str, **coefficients: float) -> dict[str, Any]:
    return {"method": method, "parameters": 1000, "kl_coef": None, "ptx_coef": None, **coefficients}


def test_the_papers_questions_are_asked_of_models_whose_method_is_known() -> None:
    known = {
        "base": dataclasses.replace(BASE, about=about("base"), right=(1.0,) * 40),
        "sft": dataclasses.replace(SFT, about=about("sft"), right=(1.0,) * 20 + (0.0,) * 20),
        "ppo": dataclasses.replace(PPO, about=about("ppo", kl_coef=0.05, ptx_coef=0.0), right=(0.0, 1.0) * 20),
    }
    beats, keeps = compare(**known)["claims"]
    assert (beats["question"], beats["holds"]) == ("Does PPO beat the SFT model?", True)
    assert beats["answer"].startswith("ppo wins 75.0 % [")
    assert (keeps["question"], keeps["holds"]) == (
        "Does PPO keep what pretraining had taught, by held-out task accuracy?",
        False,
    )
    assert keeps["answer"] == (
        "The held-out task accuracy is 50.0 % with ppo; it is 100.0 % for the base model and 50.0 % for the SFT model."
    )
    assert compare(sft=SFT, ppo=PPO)["claims"] == []
    by_llm = summarise(
        {
            name: dataclasses.replace(given, scores={}, verdicts={"llm": compared([0.5] * 4)})
            for name, given in known.items()
        },
        TASKS,
        baseline="sft",
        judges={"llm": None},
        tie_margin=0.0,
        bootstrap_samples=50,
        seed=0,
    )
    assert by_llm["claims"] == []

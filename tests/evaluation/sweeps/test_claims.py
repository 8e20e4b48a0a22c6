from __future__ import annotations

import dataclasses

import numpy as np

from rlhf.evaluation.sweeps.claims import claims, statement
from rlhf.evaluation.sweeps.summary import Measured
from tests.support.measured import ITEMS, point, sizes, study


def told(measured: Measured) -> dict[str, bool | None]:
    return {claim.question: claim.holds for claim in claims(measured)}


def test_a_study_whose_answers_are_known() -> None:
    assert told(study()) == {
        "Does PPO beat the SFT model?": True,
        "Does PPO-ptx beat the SFT model?": True,
        "Is the reward model over-optimised by PPO?": True,
        "Does PPO beat best-of-n at equal KL?": True,
        "Does PPO keep what pretraining had taught, by held-out task accuracy?": False,
        "Does PPO-ptx keep what pretraining had taught, by held-out task accuracy?": False,
        "Does ptx win back what pretraining had taught, by held-out task accuracy?": True,
        "Does that cost any of the gold score?": True,
        "Does raising the KL coefficient win it back?": False,
    }
    answers = {claim.question: claim.answer for claim in claims(study())}
    assert (
        "90.0 % for the base model, 41.0 % after ppo KL 0.2 and 88.0 %"
        in answers["Does ptx win back what pretraining had taught, by held-out task accuracy?"]
    )
    assert (
        "96 % of what was lost" in answers["Does ptx win back what pretraining had taught, by held-out task accuracy?"]
    )
    assert (
        answers["Does PPO keep what pretraining had taught, by held-out task accuracy?"]
        == "The held-out task accuracy is 40.0 % with ppo KL 0; it is 90.0 % for the base model and 50.0 % for the "
        "SFT model."
    )
    assert "peaks at 7.4 nats" in answers["Is the reward model over-optimised by PPO?"]


def test_sizes_are_held_against_each_other() -> None:
    found = told(sizes())
    assert found["Does PPO of s beat the SFT model of l?"] is True
    assert found["Does the small PPO-ptx (s) beat the base model of l?"] is True
    assert "Does PPO beat the SFT model (s)?" in found


def test_what_the_numbers_do_not_tell_is_open() -> None:
    made = study()
    luck = [0.3, 0.7]  # seeds that disagree
    points = [dataclasses.replace(p) for p in made.points if p.method != "ppo-ptx"]
    points.append(point("ppo-ptx", luck, 1.0, label="ppo-ptx ptx 3", ptx_coef=3.0, kl_coef=0.2))
    vague = dataclasses.replace(made, points=tuple(points), ptx_curves=())
    assert told(vague)["Does PPO-ptx beat the SFT model?"] is None


def test_a_reward_model_that_is_not_exploited_is_said_to_hold() -> None:
    made = study()
    rising = [
        dataclasses.replace(p, per_prompt={**p.per_prompt, "judge": tuple(k * 0.01 + 0.5 for k in p.per_prompt["kl"])})
        if p.method == "ppo"
        else p
        for p in made.points
    ]
    assert told(dataclasses.replace(made, points=tuple(rising)))["Is the reward model over-optimised by PPO?"] is False


def test_statement_begins_with_the_first_answer() -> None:
    found = claims(study())
    said = statement(study(), found)
    assert said.startswith("ppo KL 0")
    assert said.endswith("of 9 questions 6 are answered yes, 3 no.")
    assert statement(study(), []) == "Nothing was trained that could be compared."
    assert np.isfinite(len(said))


def with_taught(rights: dict[str, list[float]] | None, losses: dict[str, tuple[float, ...]]) -> Measured:
    """The study with shares of right items by label, and with losses on text, of points that have neither else."""
    made = study()
    points = [
        dataclasses.replace(
            p,
            benchmark=()
            if rights is None
            else tuple((np.arange(ITEMS) < round(share * ITEMS)).astype(float) for share in rights.get(p.label, [0.5])),
            text_loss=losses.get(p.label, (1.0,)),
        )
        for p in made.points
    ]
    return dataclasses.replace(made, points=tuple(points), items=None if rights is None else made.items)


WINS_BACK = "Does ptx win back what pretraining had taught, by held-out task accuracy?"


def test_a_few_items_more_of_one_seed_are_no_answer() -> None:
    """With one seed a difference would have no width at all, were it not for the items."""
    few = {"base": [0.9], "ppo KL 0.2": [0.5], "ppo-ptx ptx 3": [0.502], "ppo-ptx ptx 30": [0.501]}
    assert told(with_taught(few, {}))[WINS_BACK] is None
    many = {**few, "ppo-ptx ptx 30": [0.7]}
    assert told(with_taught(many, {}))[WINS_BACK] is True
    assert told(with_taught(many, {}))["Does raising the KL coefficient win it back?"] is False


def test_a_loss_of_one_seed_tells_nothing_and_of_several_what_they_tell() -> None:
    question = "Does ptx win back what pretraining had taught, by loss on held-out text?"
    one = {"base": (0.8,), "ppo KL 0.2": (3.5,), "ppo-ptx ptx 3": (0.9,), "ppo-ptx ptx 30": (0.85,)}
    assert told(with_taught(None, one))[question] is None
    several = {label: (loss[0] - 0.01, loss[0], loss[0] + 0.01) for label, loss in one.items()}
    assert told(with_taught(None, several))[question] is True
    answers = {claim.question: claim.answer for claim in claims(with_taught(None, several))}
    assert "0.800 nats for the base model, 3.500 nats after ppo KL 0.2 and 0.850 nats" in answers[question]

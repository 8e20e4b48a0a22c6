"""What the paper's questions find of a comparison's candidates."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhf.evaluation.comparison.answers import Answers
from rlhf.evaluation.comparison.points import measured_of
from rlhf.evaluation.sweeps.claims import claims

PROMPTS, ITEMS = 200, 500
NOISE = np.random.default_rng(0).normal(size=PROMPTS) * 0.05
S, M = 220_000, 940_000
KEEPS = "Does PPO keep what pretraining had taught, by held-out task accuracy?"


def model(method: str, parameters: int | None, gold: float, taught: float | None = None, **about: Any) -> Answers:
    return Answers(
        path="somewhere",
        texts=["text"] * PROMPTS,
        tokens=[10] * PROMPTS,
        ended=[True] * PROMPTS,
        scores={"gold": list(gold + NOISE), "reward_model": [about.pop("proxy", 0.0)] * PROMPTS},
        kl=[about.pop("kl", 0.0)] * PROMPTS,
        text_loss=None,
        right=() if taught is None else tuple(float(i < taught * ITEMS) for i in range(ITEMS)),
        about={"method": method, "parameters": parameters, "kl_coef": None, "ptx_coef": None, **about},
    )


def found(**candidates: Answers) -> dict[str, bool | None]:
    measured = measured_of(candidates, "gold", "gold score", tie_margin=0.0, bootstrap_samples=200, seed=0)
    assert measured is not None
    return {claim.question: claim.holds for claim in claims(measured)}


def chain(size: int, sft: float) -> dict[str, Answers]:
    return {
        "base": model("base", size, 0.1, 0.9),
        "sft": model("sft", size, sft, 0.6),
        "ppo": model("ppo", size, sft + 0.2, 0.55, kl_coef=0.05, ptx_coef=0.0, kl=1.0),
    }


def test_a_run_s_own_chain_is_asked_whether_it_won_and_what_it_forgot() -> None:
    assert found(**chain(M, 0.5)) == {"Does PPO beat the SFT model?": True, KEEPS: False}
    kept = chain(M, 0.5) | {"ppo": model("ppo", M, 0.5, 0.89, kl_coef=0.05, ptx_coef=0.0)}
    assert found(**kept) == {
        "Does PPO beat the SFT model?": None,
        KEEPS: False,
    }  # on the same items, 5 of which it lost
    same = kept | {"ppo": model("ppo", M, 0.4, 0.9, kl_coef=0.05, ptx_coef=0.0)}
    assert found(**same) == {"Does PPO beat the SFT model?": False, KEEPS: None}  # nothing tells them apart
    assert found(**(same | {"ppo": model("ppo", M, 0.4, 0.95, kl_coef=0.05, ptx_coef=0.0)}))[KEEPS] is True


def test_a_small_policy_is_held_against_the_large_base() -> None:
    """Without an SFT model of its own size, too."""
    small = {"small": model("ppo-ptx", S, 0.3, kl_coef=0.05, ptx_coef=27.8)}
    asked = found(base_l=model("base", M, 0.1), sft_l=model("sft", M, 0.5), **small)
    assert asked == {
        "Does PPO-ptx of 220k beat the SFT model of 940k?": False,
        "Does the small PPO-ptx (220k) beat the base model of 940k?": True,
    }


def test_an_added_token_makes_no_size_of_its_own() -> None:
    grown = chain(M, 0.5)
    grown["sft"] = model("sft", M + 128, 0.5, 0.6)
    assert found(**grown) == {"Does PPO beat the SFT model?": True, KEEPS: False}
    grown["base"] = model("base", M + 100_000, 0.1, 0.9)
    assert set(found(**grown)) == {
        "Does PPO beat the SFT model (940k)?",
        "Does the small PPO (940k) beat the base model of 1.04M?",
    }


def test_coefficients_among_the_candidates_make_their_curves() -> None:
    candidates = chain(M, 0.5) | {
        "far": model("ppo", M, 0.3, 0.5, kl_coef=0.0, ptx_coef=0.0, kl=30.0, proxy=2.0),
        "near": model("ppo", M, 0.55, 0.61, kl_coef=0.5, ptx_coef=0.0, kl=0.3, proxy=0.2),
        "ptx": model("ppo-ptx", M, 0.6, 0.88, kl_coef=0.05, ptx_coef=27.8, kl=1.1),
    }
    asked = found(**candidates)
    assert asked["Is the reward model over-optimised by PPO?"] is True
    assert asked["Does ptx win back what pretraining had taught, by held-out task accuracy?"] is True
    assert asked["Does that cost any of the gold score?"] is True
    assert asked["Does raising the KL coefficient win it back?"] is False


@pytest.mark.parametrize(
    "others",
    [
        {},
        {"theirs": model("outputs", None, 0.5)},
        {"picked": model("best-of-n", M, 0.6)},
        {"hub": model("other", M, 0.6)},
        {"unknown": model("base", None, 0.1)},
    ],
)
def test_candidates_of_no_known_method_or_size_are_asked_nothing(others: dict[str, Answers]) -> None:
    alone = {"sft": model("sft", M, 0.5), **others}
    assert measured_of(alone, "gold", "gold score", tie_margin=0.0, bootstrap_samples=200, seed=0) is None

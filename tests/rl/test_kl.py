from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given

from rlhf.rl.kl import ESTIMATORS, KLController, k1, k2, k3, masked_sums
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged, unpadded


@given(fields=ragged(2, -4.0, 0.0))
def test_sums_over_a_response_match_the_reference_and_ignore_padding(fields: list[list[Row]]) -> None:
    policy, ref = fields
    (logprobs, mask), (ref_logprobs, _) = padded(policy), padded(ref)
    differences = [[p - r for p, r in zip(*rows, strict=True)] for rows in zip(policy, ref, strict=True)]
    k3_terms = [[reference.k3(p, r) for p, r in zip(*rows, strict=True)] for rows in zip(policy, ref, strict=True)]
    ours = masked_sums(k1(logprobs, ref_logprobs), mask).tolist()
    assert ours == pytest.approx([sum(row) for row in differences], abs=1e-4)
    assert masked_sums(k3(logprobs, ref_logprobs), mask).tolist() == pytest.approx(
        [sum(row) for row in k3_terms], abs=1e-4, rel=1e-4
    )


def test_k1_is_not_clamped_and_k3_is_never_negative() -> None:
    policy, ref = torch.tensor([-3.0, -1.0]), torch.tensor([-1.0, -3.0])
    assert k1(policy, ref).tolist() == [-2.0, 2.0]
    assert bool((k3(policy, ref) > 0).all())


def test_both_estimators_have_the_exact_kl_as_their_expectation() -> None:
    p = torch.tensor([0.7, 0.2, 0.1])
    q = torch.tensor([0.2, 0.5, 0.3])
    exact = float((p * (p / q).log()).sum())
    for estimator in (k1, k3):
        assert float((p * estimator(p.log(), q.log())).sum()) == pytest.approx(exact, rel=1e-5)


@pytest.mark.parametrize("estimator", ["k1", "k2", "k3"])
def test_estimators_match_the_reference(estimator: str) -> None:
    policy, ref = [-0.5, -2.0, -7.0], [-3.0, -2.0, -0.1]
    ours = ESTIMATORS[estimator](torch.tensor(policy), torch.tensor(ref)).tolist()
    expected = [reference.kl_estimate(estimator, p, r) for p, r in zip(policy, ref, strict=True)]
    assert ours == pytest.approx(expected, rel=1e-5, abs=1e-6)


def test_controller_without_a_target_keeps_its_coefficient() -> None:
    controller = KLController(0.05)
    controller.update(100.0, episodes=512)
    assert controller.coef == 0.05


@pytest.mark.parametrize(("kl", "error"), [(12.0, 0.2), (6.6, 0.1), (5.4, -0.1), (-3.0, -0.2)])
def test_controller_moves_by_the_clipped_relative_error(kl: float, error: float) -> None:
    controller = KLController(0.1, target=6.0, horizon=1000)
    controller.update(kl, episodes=100)
    assert controller.coef == pytest.approx(0.1 * (1 + error * 100 / 1000))


def test_controller_state_survives_a_checkpoint() -> None:
    controller = KLController(0.1, target=6.0, horizon=100)
    controller.update(20.0, episodes=64)
    resumed = KLController(0.1, target=6.0, horizon=100)
    resumed.load_state_dict(controller.state_dict())
    assert resumed == controller
    assert not math.isclose(resumed.coef, 0.1)


def test_unpadded_helper_sees_a_leak() -> None:
    with pytest.raises(AssertionError):
        unpadded(torch.ones(1, 2), torch.tensor([[True, False]]))


@pytest.mark.parametrize("estimator", ["k2", "k3"])
def test_one_lost_token_does_not_decide_a_penalty_and_the_metric_is_what_it_is(estimator: str) -> None:
    logprobs, ref_logprobs = torch.tensor([-1.0, -40.0, -12.0]), torch.tensor([-2.0, -1.0, -1.5])
    plain = {"k2": k2, "k3": k3}[estimator](logprobs, ref_logprobs)
    penalty = ESTIMATORS[estimator](logprobs, ref_logprobs)
    assert penalty[0] == plain[0]
    at_the_limit = {"k2": 50.0, "k3": math.expm1(10.0) - 10.0}[estimator]
    assert penalty[1:].tolist() == pytest.approx([at_the_limit] * 2)
    assert plain[1] > 10 * penalty[1] if estimator == "k2" else plain[1] > 1e16
    assert ESTIMATORS["k1"](logprobs, ref_logprobs).tolist() == [1.0, -39.0, -10.5]

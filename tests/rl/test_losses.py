from __future__ import annotations

import math

import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from rlhf.rl.kl import ESTIMATORS
from rlhf.rl.losses import explained_variance, kl_loss, masked_mean, policy_loss, sequence_weights, value_loss
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged


@given(fields=ragged(4), clip_range=st.sampled_from([0.1, 0.2, 0.5]), dual_clip=st.sampled_from([0.0, 1.5, 3.0]))
def test_policy_loss_matches_the_reference_and_ignores_padding(
    fields: list[list[Row]], clip_range: float, dual_clip: float
) -> None:
    (new, mask), (old, _), (advantages, _), (weights, _) = (padded(rows) for rows in fields)
    new.requires_grad_()
    loss, clipfrac = policy_loss(
        new, old, advantages, mask, clip_range=clip_range, count=int(mask.sum()), dual_clip=dual_clip, weights=weights
    )
    expected, expected_clipfrac = reference.policy_loss(*fields[:3], clip_range, dual_clip, corrections=fields[3])
    assert loss.item() == pytest.approx(expected, abs=1e-3, rel=1e-4)
    assert clipfrac.item() == pytest.approx(expected_clipfrac)
    loss.backward()
    assert new.grad is not None
    assert bool((new.grad[~mask] == 0).all())


@given(fields=ragged(3))
def test_sequence_weights_make_it_the_mean_of_each_response_s_mean(fields: list[list[Row]]) -> None:
    (new, mask), (old, _), (advantages, _) = (padded(rows) for rows in fields)
    count = int(mask.sum())
    weights = sequence_weights(mask, mean_length=count / len(mask))
    loss, clipfrac = policy_loss(new, old, advantages, mask, clip_range=0.2, count=count, weights=weights)
    expected, expected_clipfrac = reference.policy_loss(*fields, 0.2, by_sequence=True)
    assert loss.item() == pytest.approx(expected, abs=1e-3, rel=1e-4)
    assert clipfrac.item() == pytest.approx(expected_clipfrac)
    assert masked_mean(weights, mask).item() == pytest.approx(1.0)


def test_dual_clip_bounds_the_loss_of_a_bad_token_alone() -> None:
    logprobs = torch.tensor([[3.0, 3.0]], requires_grad=True)
    mask, zeros = torch.ones(1, 2, dtype=torch.bool), torch.zeros(1, 2)
    for advantage, dual_clip, loss_of_each in ((-1.0, 0.0, math.exp(3)), (-1.0, 3.0, 3.0), (1.0, 3.0, -1.2)):
        loss, _ = policy_loss(logprobs, zeros, zeros + advantage, mask, clip_range=0.2, count=2, dual_clip=dual_clip)
        assert loss.item() == pytest.approx(loss_of_each, rel=1e-5)
    loss, clipfrac = policy_loss(logprobs, zeros, zeros - 1, mask, clip_range=0.2, count=2, dual_clip=3.0)
    loss.backward()
    assert clipfrac == 1
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[0, 0]]


@given(fields=ragged(3), clip_range=st.sampled_from([0.0, 0.2, 1.0]))
def test_value_loss_matches_the_reference_and_ignores_padding(fields: list[list[Row]], clip_range: float) -> None:
    (values, mask), (old, _), (returns, _) = (padded(rows) for rows in fields)
    values.requires_grad_()
    loss, _ = value_loss(values, old, returns, mask, clip_range=clip_range, count=int(mask.sum()))
    assert loss.item() == pytest.approx(reference.value_loss(*fields, clip_range), abs=1e-4, rel=1e-4)
    loss.backward()
    assert values.grad is not None
    assert bool((values.grad[~mask] == 0).all())


@given(fields=ragged(2))
def test_explained_variance_matches_the_reference_and_ignores_padding(fields: list[list[Row]]) -> None:
    (values, mask), (returns, _) = (padded(rows) for rows in fields)
    flat_values, flat_returns = ([x for row in rows for x in row] for rows in fields)
    assume(len(flat_returns) > 1 and torch.tensor(flat_returns).var() > 1e-2)
    expected = reference.explained_variance(flat_values, flat_returns)
    assert explained_variance(values, returns, mask).item() == pytest.approx(expected, abs=1e-3, rel=1e-3)


def test_equal_logprobs_give_ratio_one_clipfrac_zero_and_the_policy_gradient() -> None:
    logprobs = torch.tensor([[-1.0, -2.0]], requires_grad=True)
    advantages = torch.tensor([[3.0, -1.0]])
    mask = torch.ones(1, 2, dtype=torch.bool)
    loss, clipfrac = policy_loss(logprobs, logprobs.detach(), advantages, mask, clip_range=0.2, count=2)
    loss.backward()
    assert clipfrac == 0
    assert loss.item() == pytest.approx(-1.0)
    assert logprobs.grad is not None
    assert logprobs.grad.tolist() == [[-1.5, 0.5]]


@pytest.mark.parametrize(("log_ratio", "advantage"), [(1.0, 1.0), (-1.0, -1.0)])
def test_a_token_beyond_the_clip_in_the_rewarded_direction_has_no_gradient(log_ratio: float, advantage: float) -> None:
    logprobs = torch.tensor([[log_ratio]], requires_grad=True)
    mask = torch.ones(1, 1, dtype=torch.bool)
    loss, clipfrac = policy_loss(
        logprobs, torch.zeros(1, 1), torch.tensor([[advantage]]), mask, clip_range=0.2, count=1
    )
    loss.backward()
    assert clipfrac == 1
    assert logprobs.grad is not None
    assert logprobs.grad.item() == 0


def test_parts_of_a_batch_with_the_whole_count_add_up_to_the_whole() -> None:
    generator = torch.Generator().manual_seed(0)
    new, old, advantages = (torch.randn(4, 5, generator=generator) for _ in range(3))
    mask = torch.arange(5) < torch.tensor([5, 1, 2, 3])[:, None]
    count = int(mask.sum())
    whole, _ = policy_loss(new, old, advantages, mask, clip_range=0.2, count=count)
    parts = [
        policy_loss(new[s], old[s], advantages[s], mask[s], clip_range=0.2, count=count)[0]
        for s in (slice(0, 1), slice(1, 4))
    ]
    assert whole.item() == pytest.approx(sum(part.item() for part in parts), rel=1e-5)


def test_masked_mean_divides_by_true_entries_or_by_the_stated_count() -> None:
    x, mask = torch.tensor([1.0, 2.0, torch.nan]), torch.tensor([True, True, False])
    assert masked_mean(x, mask).item() == 1.5
    assert masked_mean(x, mask, 6).item() == 0.5


ESTIMATOR_NAMES = ["k1", "k2", "k3"]


@given(fields=ragged(3, -4.0, 0.0), estimator=st.sampled_from(ESTIMATOR_NAMES))
def test_kl_loss_matches_the_reference_and_ignores_padding(fields: list[list[Row]], estimator: str) -> None:
    (new, mask), (old, _), (ref, _) = (padded(rows) for rows in fields)
    new.requires_grad_()
    loss = kl_loss(new, old, ref, mask, estimator=estimator, count=int(mask.sum()))
    assert loss.item() == pytest.approx(reference.kl_loss(estimator, *fields), abs=1e-3, rel=1e-3)
    loss.backward()
    assert new.grad is not None
    assert bool((new.grad[~mask] == 0).all())


LOGITS, OLD_LOGITS, REF_LOGITS = ([0.3, -1.2, 0.8, 0.1], [0.0, -0.5, 1.0, -0.2], [1.0, 0.2, -0.7, 0.4])


def probabilities(logits: list[float]) -> list[float]:
    return [math.exp(reference.logprob(logits, token, 1.0)) for token in range(len(logits))]


@pytest.mark.parametrize("estimator", ESTIMATOR_NAMES)
def test_gradient_of_the_kl_loss_is_that_of_the_exact_kl(estimator: str) -> None:
    """Every token of the vocabulary at once, each as often as the old policy draws it: an exact expectation."""
    logits = torch.tensor(LOGITS, requires_grad=True)
    old, ref = torch.tensor(OLD_LOGITS).log_softmax(-1), torch.tensor(REF_LOGITS).log_softmax(-1)
    everything = torch.ones(4, dtype=torch.bool)
    loss = kl_loss(logits.log_softmax(-1), old, ref, everything, estimator=estimator, count=1.0, weights=old.exp())
    loss.backward()
    policy, reference_policy = probabilities(LOGITS), probabilities(REF_LOGITS)
    assert logits.grad is not None
    assert logits.grad.tolist() == pytest.approx(reference.kl_gradient(policy, reference_policy), abs=1e-6)
    if estimator != "k2":
        assert loss.item() == pytest.approx(reference.kl(policy, reference_policy), rel=1e-5)


def test_estimators_differentiated_at_fixed_tokens_have_the_gradients_that_kl_loss_says() -> None:
    policy, reference_policy = probabilities(LOGITS), probabilities(REF_LOGITS)
    expected = {
        "k1": [0.0] * 4,
        "k2": reference.kl_gradient(policy, reference_policy),
        "k3": reference.reverse_kl_gradient(policy, reference_policy),
    }
    ref = torch.tensor(REF_LOGITS).log_softmax(-1)
    for estimator, gradient in expected.items():
        logits = torch.tensor(LOGITS, requires_grad=True)
        logprobs = logits.log_softmax(-1)
        (logprobs.detach().exp() * ESTIMATORS[estimator](logprobs, ref)).sum().backward()
        assert logits.grad is not None
        assert logits.grad.tolist() == pytest.approx(gradient, abs=1e-6)


def test_values_within_the_bound_are_not_clipped_whatever_their_last_bit() -> None:
    generator = torch.Generator().manual_seed(0)
    old, values = (0.1 * torch.rand(2, 1, 1000, generator=generator) - 0.05).unbind()
    assert not torch.equal(old + (values - old), values)  # the last bit does move
    returns = torch.rand(1, 1000, generator=generator)
    mask = torch.ones(1, 1000, dtype=torch.bool)
    _, clipped = value_loss(values, old, returns, mask, clip_range=0.2, count=1000)
    assert clipped == 0

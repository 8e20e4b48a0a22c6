from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.rewards import adjusted_scores, length_penalties, token_rewards
from tests.reference import ppo as reference
from tests.support.rl_rows import Row, padded, ragged, unpadded


@given(
    fields=ragged(2, -4.0, 0.0), coef=st.sampled_from([0.0, 0.05, 1.0]), estimator=st.sampled_from(["k1", "k2", "k3"])
)
def test_rewards_match_the_reference_and_ignore_padding(fields: list[list[Row]], coef: float, estimator: str) -> None:
    policy, ref = fields
    scores = [float(i) - 1.5 for i in range(len(policy))]
    (logprobs, mask), (ref_logprobs, _) = padded(policy), padded(ref)
    rewards = token_rewards(torch.tensor(scores), logprobs, ref_logprobs, mask, kl_coef=coef, estimator=estimator)
    for row, score, p, r in zip(unpadded(rewards, mask), scores, policy, ref, strict=True):
        assert row == pytest.approx(reference.rewards(score, p, r, coef, estimator), abs=1e-4, rel=1e-5)


def test_score_lies_on_the_last_response_token_not_on_padding() -> None:
    zeros = torch.zeros(2, 4)
    mask = torch.tensor([[True, True, False, False], [True, True, True, True]])
    rewards = token_rewards(torch.tensor([5.0, 7.0]), zeros, zeros, mask, kl_coef=0.1)
    assert rewards.tolist() == [[0, 5, 0, 0], [0, 0, 0, 7]]


def test_rewards_of_a_response_sum_to_score_less_coef_times_kl() -> None:
    logprobs, ref_logprobs = torch.tensor([[-1.0, -2.0]]), torch.tensor([[-3.0, -1.0]])
    rewards = token_rewards(
        torch.tensor([4.0]), logprobs, ref_logprobs, torch.ones(1, 2, dtype=torch.bool), kl_coef=0.5
    )
    assert rewards.sum().item() == pytest.approx(4.0 - 0.5 * 1.0)


def test_empty_response_and_wrong_shapes_are_refused() -> None:
    zeros, mask = torch.zeros(1, 2), torch.zeros(1, 2, dtype=torch.bool)
    with pytest.raises(ValueError, match="without a token"):
        token_rewards(torch.zeros(1), zeros, zeros, mask, kl_coef=0.1)
    with pytest.raises(ValueError, match="shapes differ"):
        token_rewards(torch.zeros(2), zeros, zeros, ~mask, kl_coef=0.1)


def test_scores_are_cut_before_the_penalty_for_not_ending() -> None:
    scores, ended = torch.tensor([9.0, 9.0, -9.0, 1.0]), torch.tensor([True, False, False, False])
    cut = adjusted_scores(scores, ended, score_clip=5.0, missing_eos_penalty=2.0)
    assert cut.tolist() == [5.0, 3.0, -7.0, -1.0]
    assert torch.equal(adjusted_scores(scores, ended, score_clip=0.0, missing_eos_penalty=0.0), scores)


def test_missing_eos_score_takes_the_place_of_the_score() -> None:
    scores, ended = torch.tensor([9.0, 9.0, -9.0]), torch.tensor([True, False, False])
    given = adjusted_scores(scores, ended, score_clip=0.0, missing_eos_penalty=0.0, missing_eos_score=-1.0)
    assert given.tolist() == [9.0, -1.0, -1.0]


def test_scores_are_scaled_before_they_are_cut() -> None:
    scaled = adjusted_scores(
        torch.tensor([9.0, -2.0]), torch.tensor([True, False]), score_clip=2.0, missing_eos_penalty=1.0, std=4.0
    )
    assert scaled.tolist() == [2.0, -1.5]


@given(
    lengths=st.lists(st.integers(1, 12), min_size=1, max_size=5),
    penalty=st.sampled_from([0.0, 0.25, 1.0]),
    free=st.integers(0, 10),
)
def test_length_penalties_match_the_reference(lengths: list[int], penalty: float, free: int) -> None:
    ours = length_penalties(torch.tensor(lengths), penalty=penalty, free=free).tolist()
    assert ours == pytest.approx([reference.length_penalty(length, penalty, free) for length in lengths])

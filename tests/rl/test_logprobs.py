from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from rlhf.rl.logprobs import entropy, token_logprobs
from tests.reference import ppo as reference

logit_rows = st.lists(st.lists(st.floats(-8, 8, width=32), min_size=5, max_size=5), min_size=1, max_size=4)
temperatures = st.sampled_from([0.3, 0.7, 1.0, 2.0])


@given(rows=logit_rows, token=st.integers(0, 4), temperature=temperatures)
def test_token_logprobs_match_the_reference(rows: list[list[float]], token: int, temperature: float) -> None:
    ours = token_logprobs(torch.tensor(rows), torch.full((len(rows),), token), temperature=temperature)
    expected = [reference.logprob(row, token, temperature) for row in rows]
    assert ours.tolist() == pytest.approx(expected, abs=1e-5, rel=1e-5)


@given(rows=logit_rows, temperature=temperatures)
def test_entropy_matches_the_reference(rows: list[list[float]], temperature: float) -> None:
    ours = entropy(torch.tensor(rows), temperature=temperature)
    assert ours.tolist() == pytest.approx([reference.entropy(row, temperature) for row in rows], abs=1e-5, rel=1e-4)


def test_temperature_divides_the_logits() -> None:
    logits = torch.tensor([[2.0, 0.0]])
    tokens = torch.tensor([0])
    cold = token_logprobs(logits, tokens, temperature=0.5)
    assert torch.equal(cold, token_logprobs(logits / 0.5, tokens))
    assert cold > token_logprobs(logits, tokens)


def test_half_precision_logits_give_float32_logprobs() -> None:
    logits = torch.randn(3, 7, generator=torch.Generator().manual_seed(0)).bfloat16()
    ours = token_logprobs(logits, torch.tensor([0, 1, 2]))
    assert ours.dtype == torch.float32
    assert torch.equal(ours, token_logprobs(logits.float(), torch.tensor([0, 1, 2])))


def test_entropy_takes_a_token_that_cannot_be_drawn() -> None:
    logits = torch.tensor([[0.0, 1.0, -torch.inf]], requires_grad=True)
    two = torch.tensor([[0.0, 1.0]], requires_grad=True)
    entropies = [entropy(logits), entropy(two)]
    assert entropies[0].item() == pytest.approx(entropies[1].item())
    for found in entropies:
        found.backward()
    assert logits.grad is not None
    assert two.grad is not None
    assert logits.grad[0].tolist() == pytest.approx([*two.grad[0].tolist(), 0.0])
    assert two.grad[0, 0] > 0

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.nn import functional as F

from rlhf.rl.kway import kway_loss
from tests.reference import kway as reference

Prompts = list[list[tuple[float, int, float]]]  # score, rank, worth of each completion of each prompt

prompts_strategy = st.lists(
    st.lists(st.tuples(st.floats(-30, 30), st.integers(0, 3), st.floats(-2, 2)), min_size=1, max_size=6),
    min_size=1,
    max_size=5,
)


def padded(prompts: Prompts, fill: float = float("nan")) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Scores, ranks, mask, margins: (prompts, K), with `fill` where there is no completion."""
    width = max(len(row) for row in prompts)
    scores = torch.full((len(prompts), width), fill, dtype=torch.float64)
    margins, ranks = scores.clone(), torch.zeros(scores.shape, dtype=torch.long)
    mask = torch.zeros(scores.shape, dtype=torch.bool)
    for p, row in enumerate(prompts):
        for k, (score, rank, worth) in enumerate(row):
            scores[p, k], ranks[p, k], margins[p, k], mask[p, k] = score, rank, worth, True
    return scores, ranks, mask, margins


@settings(max_examples=200, deadline=None)
@given(prompts_strategy, st.booleans())
def test_loss_is_the_reference_with_nan_in_the_padding(prompts: Prompts, with_margins: bool) -> None:
    scores, ranks, mask, margins = padded(prompts)
    loss = kway_loss(scores, ranks, mask, margins if with_margins else None)
    columns = [[[c[i] for c in row] for row in prompts] for i in range(3)]
    expected = reference.kway_loss(columns[0], columns[1], columns[2] if with_margins else None)
    assert float(loss) == pytest.approx(expected, rel=1e-9, abs=1e-12)


@settings(max_examples=50, deadline=None)
@given(prompts_strategy)
def test_gradient_is_that_of_all_pairs_one_by_one(prompts: Prompts) -> None:
    scores, ranks, mask, _ = padded(prompts)
    scores.requires_grad_()
    kway_loss(scores, ranks, mask).backward()

    pairwise = scores.detach().clone().requires_grad_()
    total = torch.zeros((), dtype=torch.float64)
    counted = 0
    for p, row in enumerate(prompts):
        pairs = [(i, j) for i in range(len(row)) for j in range(len(row)) if row[i][1] < row[j][1]]
        counted += bool(pairs)
        for i, j in pairs:
            total = total - F.logsigmoid(pairwise[p, i] - pairwise[p, j]) / len(pairs)
    if counted == 0:
        assert torch.equal(scores.grad[mask], torch.zeros_like(scores.grad[mask]))
        return
    (total / counted).backward()
    torch.testing.assert_close(scores.grad[mask], pairwise.grad[mask])
    assert torch.equal(scores.grad[~mask], torch.zeros_like(scores.grad[~mask]))


def test_equal_scores_lose_log_two() -> None:
    scores, ranks, mask, _ = padded([[(1.5, 0, 0), (1.5, 1, 0), (1.5, 2, 0)], [(-3.0, 1, 0), (-3.0, 0, 0)]])
    assert float(kway_loss(scores, ranks, mask)) == pytest.approx(math.log(2))


def test_two_completions_are_the_pairwise_loss() -> None:
    scores, ranks, mask, _ = padded([[(0.3, 1, 0), (1.1, 0, 0)]])
    assert float(kway_loss(scores, ranks, mask)) == pytest.approx(-math.log(1 / (1 + math.exp(-0.8))))


def test_shifting_all_scores_of_a_prompt_changes_nothing() -> None:
    prompts: Prompts = [[(0.1, 0, 0), (0.7, 2, 0), (0.2, 1, 0)], [(2.0, 1, 0), (1.0, 0, 0)]]
    scores, ranks, mask, _ = padded(prompts, fill=0.0)
    shift = torch.tensor([[5.0], [-7.0]], dtype=torch.float64)
    torch.testing.assert_close(kway_loss(scores + shift, ranks, mask), kway_loss(scores, ranks, mask))


def test_parts_of_a_batch_add_up_to_the_whole() -> None:
    prompts: Prompts = [[(0.1, 0, 0), (0.7, 1, 0)], [(2.0, 1, 0), (1.0, 0, 0), (0.0, 2, 0)], [(1.0, 0, 0), (1.0, 0, 0)]]
    whole = kway_loss(*padded(prompts)[:3])
    parts = [kway_loss(*padded([row])[:3], count=2.0) for row in prompts]
    torch.testing.assert_close(torch.stack(parts).sum(), whole)

"""The reward model's loss on K ranked completions of a prompt: all pairs, each completion scored once."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def better_pairs(ranks: Tensor, mask: Tensor) -> Tensor:
    """(prompts, K, K) bool, True at [p, i, j] where completion i of prompt p is ranked better than its completion j.

    ranks: (prompts, K) int64, 0 best, equal is a tie.  mask: (prompts, K) bool, True where there is a completion.
    """
    both = mask[:, :, None] & mask[:, None, :]
    return both & (ranks[:, :, None] < ranks[:, None, :])


def kway_loss(
    scores: Tensor, ranks: Tensor, mask: Tensor, margins: Tensor | None = None, *, count: Tensor | float | None = None
) -> Tensor:
    """Mean over prompts of the mean over non-tied pairs of -log sigmoid(better - worse) (arXiv:2203.02155, eq. 1).

    scores:  (prompts, K) float32, what is trained; any value, NaN too, where mask is False.
    ranks:   (prompts, K) int64, 0 best, equal numbers are ties, which no pair is made of.
    mask:    (prompts, K) bool, True where a prompt has a completion: K may differ.
    margins: (prompts, K) float32, each completion's worth; the pair's difference in worth, not below 0, is subtracted
             from the difference in score (arXiv:2307.09288, eq. 2). None subtracts nothing.
    count:   what the sum over prompts is divided by: those with a pair in the whole batch, over all micro-batches and
             ranks. None counts them here.
    Returns a scalar. A prompt without a pair adds 0. The paper divides by K choose 2, ties dropped beforehand; here a
    prompt with ties weighs as much as one without.
    """
    pairs = better_pairs(ranks, mask)
    scores = scores.where(mask, 0.0)
    difference = scores[:, :, None] - scores[:, None, :]
    if margins is not None:
        worth = margins.where(mask, 0.0)
        difference = difference - (worth[:, :, None] - worth[:, None, :]).clamp(min=0)
    losses = -F.logsigmoid(difference).where(pairs, 0.0)
    pair_counts = pairs.sum((1, 2))
    per_prompt = losses.sum((1, 2)) / pair_counts.clamp(min=1)
    divisor = (pair_counts > 0).sum() if count is None else torch.as_tensor(count, device=scores.device)
    return per_prompt.sum() / divisor.clamp(min=1)

"""Generalised advantage estimation."""

from __future__ import annotations

import torch
from torch import Tensor


def gae(rewards: Tensor, values: Tensor, mask: Tensor, *, gamma: float, gae_lambda: float) -> Tensor:
    """Generalised advantage estimation (arXiv:1506.02438, eq. 16), with value 0 after the last token.

    rewards, values: (batch, response) float32, in units of reward; values[:, t] is of the state token t was drawn in.
    mask:            (batch, response) bool, True on response tokens, which lie side by side in each row.
    Returns advantages, (batch, response) float32, not whitened, 0 where mask is False; returns are these plus values.
    Raises ValueError if the three shapes differ.
    """
    if not rewards.shape == values.shape == mask.shape:
        raise ValueError(f"shapes differ: {rewards.shape}, {values.shape}, {mask.shape}")
    rewards = rewards.where(mask, 0.0)
    values = values.where(mask, 0.0)
    next_values = torch.cat([values[:, 1:], values.new_zeros(len(values), 1)], dim=1)
    deltas = rewards + gamma * next_values - values
    running = torch.zeros_like(deltas[:, 0])
    advantages = torch.empty_like(deltas)
    for t in reversed(range(deltas.shape[1])):
        # Beyond a row's end there is nothing to carry back; inside it every later token is the row's own.
        running = torch.where(mask[:, t], deltas[:, t] + gamma * gae_lambda * running, 0.0)
        advantages[:, t] = running
    return advantages

"""PPO's losses. Each divides by a count that the caller states, so that parts of a batch add up to the whole."""

from __future__ import annotations

import torch
from torch import Tensor


def masked_mean(x: Tensor, mask: Tensor, count: Tensor | float | None = None) -> Tensor:
    """Sum of x where mask is True, over `count`; None counts the True entries of this mask. Scalar, float32."""
    return x.where(mask, 0.0).sum() / (mask.sum() if count is None else count)


def policy_loss(
    logprobs: Tensor, old_logprobs: Tensor, advantages: Tensor, mask: Tensor, *, clip_range: float, count: float
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (arXiv:1707.06347, eq. 7), negated, and the share of tokens at which it is clipped.

    logprobs, old_logprobs, advantages: one shape, float32; the policy's now, at rollout time, and the advantages.
    mask:  that shape, bool, True on response tokens.
    count: what both sums are divided by: the response tokens of the whole minibatch, over all micro-batches and ranks.
    Returns two scalars; only the first has a gradient. Clipped means the clipped branch is the smaller one, where the
    gradient is 0, and not merely a ratio out of range.
    """
    ratio = (logprobs - old_logprobs).where(mask, 0.0).exp()
    advantages = advantages.where(mask, 0.0)
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    loss = masked_mean(-torch.minimum(plain, clipped), mask, count)
    return loss, masked_mean((clipped < plain).float(), mask, count).detach()


def value_loss(
    values: Tensor, old_values: Tensor, returns: Tensor, mask: Tensor, *, clip_range: float, count: float
) -> tuple[Tensor, Tensor]:
    """Half the squared error, the larger of it with and without clipping, and the share of tokens clipped.

    values, old_values, returns: one shape, float32, in units of reward: now, at rollout time, and the target.
    mask, count: as in `policy_loss`.  clip_range: how far values may move from old_values; 0 does not clip.
    Returns two scalars; only the first has a gradient. Schulman et al.'s code (openai/baselines, ppo2), not the paper.
    """
    values, old_values, returns = (x.where(mask, 0.0) for x in (values, old_values, returns))
    error = (values - returns).square()
    if clip_range == 0:
        return 0.5 * masked_mean(error, mask, count), torch.zeros((), device=values.device)
    clipped = old_values + (values - old_values).clamp(-clip_range, clip_range)
    clipped_error = (clipped - returns).square()
    loss = 0.5 * masked_mean(torch.maximum(error, clipped_error), mask, count)
    return loss, masked_mean((clipped_error > error).float(), mask, count).detach()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the entries where mask is True: 1 is perfect, 0 a constant guess.

    One shape, float32; population variances. Returns a scalar, NaN when the returns do not vary.
    """
    values, returns = values[mask], returns[mask]
    return 1 - (returns - values).var(correction=0) / returns.var(correction=0)

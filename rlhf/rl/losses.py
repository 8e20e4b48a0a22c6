"""PPO's losses. Each divides by a count that the caller states, so that parts of a batch add up to the whole."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.rl.kl import ESTIMATORS


def masked_mean(x: Tensor, mask: Tensor, count: Tensor | float | None = None, weights: Tensor | None = None) -> Tensor:
    """Sum of x * weights where mask is True, over `count`; None counts the True entries of this mask. Scalar, float32.

    weights: the shape of x, float32; None weighs every entry 1.
    """
    x = x.where(mask, 0.0)
    if weights is not None:
        x = x * weights.where(mask, 0.0)
    return x.sum() / (mask.sum() if count is None else count)


def policy_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    advantages: Tensor,
    mask: Tensor,
    *,
    clip_range: float,
    count: float,
    dual_clip: float = 0.0,
    weights: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """The clipped surrogate (arXiv:1707.06347, eq. 7), negated, and the share of tokens at which a clip decides.

    logprobs, old_logprobs, advantages: one shape, float32; the policy's now, at rollout time, and the advantages.
    mask:  that shape, bool, True on response tokens.
    count: what both sums are divided by: the response tokens of the whole minibatch, over all micro-batches and ranks.
    dual_clip: c > 1 of arXiv:1912.09729: where the advantage is below 0 the surrogate stays above c * advantage, so
               that a bad token that grew likely has a bounded loss; 0 leaves it unbounded, as PPO's paper.
    weights: that shape, float32, each token's weight in the loss, 1 on average; None weighs all alike.
    Returns two scalars; only the first has a gradient. Clipped means a clip has the say, so that the gradient is 0, and
    not merely a ratio out of range.
    """
    ratio = (logprobs - old_logprobs).where(mask, 0.0).exp()
    advantages = advantages.where(mask, 0.0)
    plain = ratio * advantages
    clipped = ratio.clamp(1 - clip_range, 1 + clip_range) * advantages
    surrogate, decided = torch.minimum(plain, clipped), clipped < plain
    if dual_clip > 0:
        least = dual_clip * advantages
        bounded = (advantages < 0) & (surrogate < least)
        surrogate, decided = torch.where(bounded, least, surrogate), decided | bounded
    return masked_mean(-surrogate, mask, count, weights), masked_mean(decided.float(), mask, count).detach()


def sequence_weights(mask: Tensor, *, mean_length: float) -> Tensor:
    """Weights that make a mean over tokens the mean over responses of each response's own mean.

    mask: (batch, response) bool, True on response tokens, at least one a row.
    mean_length: tokens over responses of the whole minibatch, over all micro-batches and ranks.
    Returns (batch, response) float32, mean_length / the row's length on its tokens, 0 where mask is False.
    """
    return (mean_length / mask.sum(-1, keepdim=True)).where(mask, 0.0)


def kl_loss(
    logprobs: Tensor,
    old_logprobs: Tensor,
    ref_logprobs: Tensor,
    mask: Tensor,
    *,
    estimator: str,
    count: float,
    weights: Tensor | None = None,
) -> Tensor:
    """KL(policy || reference) as a term of the loss: mean a token, with that KL's gradient for each estimator.

    The tokens are samples of the policy, and what is to fall is an expectation under that policy, so differentiating
    an estimate at fixed tokens is not enough. On average over samples, the gradient is for
        k1: 0, for the mean of grad log policy is 0;
        k2: that of KL(policy || reference), though the mean of k2 itself is not the KL;
        k3: that of KL(reference || policy), the other direction, though the mean of k3 itself is the KL
    (arXiv:2506.09477). So k1 and k3 are multiplied by ratio = policy / old policy and the product is differentiated: it
    has the KL as its mean and the KL's gradient as its gradient (arXiv:2512.02556, section 3.1, for k3). k2 is
    multiplied by the ratio held constant. The ratio also makes all three right for samples of the old policy. The
    gradients of k2 and k3 then are the same, ratio * log(policy / reference) * grad log policy; that of k1 has
    ratio * grad log policy more, which is noise of mean 0.

    It is the KL at each token given the tokens before it: that a token leads to others at which the two differ counts
    when the KL is in the reward, and not here.

    logprobs, old_logprobs, ref_logprobs: one shape, float32; the policy's now, at rollout time, and the reference's.
    mask, count, weights: as in `policy_loss`.  estimator: "k1", "k2" or "k3".
    Returns a scalar in nats.
    """
    logprobs, old_logprobs, ref_logprobs = (x.where(mask, 0.0) for x in (logprobs, old_logprobs, ref_logprobs))
    ratio = (logprobs - old_logprobs).exp()
    if estimator == "k2":
        ratio = ratio.detach()
    return masked_mean(ratio * ESTIMATORS[estimator](logprobs, ref_logprobs), mask, count, weights)


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
    # old + (new - old) is not new to the last bit, so that alone would count values which never met the bound.
    decided = (clipped_error > error) & ((values - old_values).abs() > clip_range)
    return loss, masked_mean(decided.float(), mask, count).detach()


def explained_variance(values: Tensor, returns: Tensor, mask: Tensor) -> Tensor:
    """1 - Var(returns - values) / Var(returns) over the entries where mask is True: 1 is perfect, 0 a constant guess.

    One shape, float32; population variances. Returns a scalar, NaN when the returns do not vary.
    """
    values, returns = values[mask], returns[mask]
    return 1 - (returns - values).var(correction=0) / returns.var(correction=0)

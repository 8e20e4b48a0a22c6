"""Importance weights for a sampler whose probabilities are not quite the trainer's."""

from __future__ import annotations

from torch import Tensor


def truncated_ratio(logprobs: Tensor, sampler_logprobs: Tensor, mask: Tensor, *, cap: float) -> Tensor:
    """min(policy / sampler, cap) at each token, a constant weight for its loss.

    An inference engine in another precision or with other kernels draws from probabilities of its own; the weight makes
    means over its samples means over the policy's, but for the cap, which bounds their variance at the price of a bias.
    Yao et al. 2025, "Your Efficient RL Framework Secretly Brings You Off-Policy RL Training" (truncated importance
    sampling, a token at a time); AIPO in arXiv:2505.24034 caps the ratio likewise.

    logprobs, sampler_logprobs: (batch, response) float32, of the policy at rollout time as the trainer computes them,
                                and as the sampler drew.
    mask: (batch, response) bool, True on response tokens.
    Returns (batch, response) float32, 0 where mask is False.
    """
    return (logprobs - sampler_logprobs).where(mask, 0.0).exp().clamp(max=cap).where(mask, 0.0)

"""From one score a response to one reward a token."""

from __future__ import annotations

import torch
from torch import Tensor

from rlhf.rl.kl import ESTIMATORS


def adjusted_scores(
    scores: Tensor,
    ended: Tensor,
    *,
    score_clip: float,
    missing_eos_penalty: float,
    missing_eos_score: float | None = None,
    std: float = 1.0,
) -> Tensor:
    """Scores over `std`, cut to [-score_clip, score_clip], less `missing_eos_penalty` where the response did not end.

    A `missing_eos_score` is the whole score of such a response instead (the EOS trick of arXiv:2403.17031).

    scores: (batch,) float32.  ended: (batch,) bool.  score_clip 0 does not cut.
    Returns (batch,) float32. The penalty comes after the cut, so that a cut score still feels it.
    """
    scores = scores / std
    if score_clip > 0:
        scores = scores.clamp(-score_clip, score_clip)
    unended = scores - missing_eos_penalty if missing_eos_score is None else scores.new_tensor(missing_eos_score)
    return torch.where(ended, scores, unended)


def length_penalties(lengths: Tensor, *, penalty: float, free: int) -> Tensor:
    """`penalty` for each response token beyond the `free` first ones, to be taken from the score.

    The soft overlong punishment of DAPO (arXiv:2503.14476, eq. 13) is `penalty` 1 / L_cache from L_max - L_cache on.

    lengths: (batch,) int64, response tokens, the end token included.  Returns (batch,) float32, 0 or more.
    """
    return penalty * (lengths - free).clamp(min=0).float()


def token_rewards(
    scores: Tensor, logprobs: Tensor, ref_logprobs: Tensor, mask: Tensor, *, kl_coef: float, estimator: str = "k1"
) -> Tensor:
    """Score on each response's last token, less kl_coef * estimate of KL(policy || reference) on every token.

    The papers' estimate is k1, log policy - log reference, and only with it is the policy gradient that of the KL, for
    E[grad log policy * k1] is. k3 has the KL's mean but as a reward subtracts the gradient of KL(reference || policy)
    from it; k2 has another mean too.

    scores: (batch,) float32.
    logprobs, ref_logprobs: (batch, response) float32, of the policy at rollout time and of the reference.
    mask: (batch, response) bool, True on response tokens, at least one a row.
    estimator: "k1", "k2" or "k3".
    Returns rewards, (batch, response) float32, 0 where mask is False.
    Raises ValueError if shapes differ or a row has no token. arXiv:1909.08593, eq. 2; arXiv:2203.02155, eq. 2.
    """
    if not logprobs.shape == ref_logprobs.shape == mask.shape or scores.shape != mask.shape[:1]:
        raise ValueError(f"shapes differ: {scores.shape}, {logprobs.shape}, {ref_logprobs.shape}, {mask.shape}")
    if not bool(mask.any(-1).all()):
        raise ValueError("a response without a token has no place for its score")
    # An estimate of equal log-probs is 0, whichever it is.
    logprobs, ref_logprobs = (x.where(mask, 0.0) for x in (logprobs, ref_logprobs))
    rewards = -kl_coef * ESTIMATORS[estimator](logprobs, ref_logprobs)
    last = (mask * torch.arange(1, mask.shape[1] + 1, device=mask.device)).argmax(-1, keepdim=True)
    return rewards.scatter_add(1, last, scores[:, None])

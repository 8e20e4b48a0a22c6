"""Log-probabilities of tokens under a model's logits."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F


def token_logprobs(logits: Tensor, tokens: Tensor, *, temperature: float = 1.0) -> Tensor:
    """log softmax(logits / temperature) at `tokens`, in nats.

    logits: (..., vocab), any float dtype; the softmax runs in float32.
    tokens: (...) int64.
    Returns (...) float32. The temperature is the sampler's, so that these are log-probs of what was sampled from.
    """
    vocab = logits.shape[-1]
    scaled = logits.float() if temperature == 1.0 else logits.float() / temperature
    losses = F.cross_entropy(scaled.reshape(-1, vocab), tokens.reshape(-1), reduction="none")
    return -losses.view(tokens.shape)


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy of softmax(logits / temperature), in nats; (..., vocab) any float dtype -> (...) float32."""
    logprobs = (logits.float() / temperature).log_softmax(-1)
    # A token of probability 0 (logit -inf) adds 0, the limit of p log p, and not 0 * -inf, in the gradient too.
    terms = logprobs.exp() * logprobs.where(logprobs > -torch.inf, 0.0)
    return -terms.sum(-1)

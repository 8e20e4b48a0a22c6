"""The reward model's bias: demonstrations score 0 on average (arXiv:2203.02155, section 3.5).

Transformers' sequence classifiers have no bias for these architectures, and the saved folder must load with plain
from_pretrained, so the bias is folded into the weights. A final LayerNorm has a bias b, and scores are w . (norm + b):
moving b by -m w / |w|^2 moves every score by exactly -m. A final RMSNorm has none. There the direction u is sought for
which u . h(x) is nearest to 1 over all features h(x) at hand, and w moves along it; how far from 1 it stays is reported
as the residual. Pairs of one prompt differ little in that direction, so their order is kept but for the residual.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.models.scores import last_hidden_states

SEQUENCES = 1000
_RIDGE = 1e-4  # of the features' mean square, so that the direction does not chase noise


@dataclass(frozen=True)
class Bias:
    removed: float  # the demonstrations' mean score before
    residual: float  # standard deviation, in units of score, of what the fold moved beside the constant


def set_bias(
    model: Any,
    demonstrations: Sequence[Sequence[int]],
    completions: Sequence[Sequence[int]],
    *,
    token_budget: int = 8192,
) -> Bias:
    """Sets the mean score of `demonstrations` to 0, in place; both are token ids of whole sequences.

    At most SEQUENCES of each are run: their mean is known well enough, and the direction needs no more.
    """
    features = [
        last_hidden_states(model, ids[:SEQUENCES], token_budget=token_budget) for ids in (demonstrations, completions)
    ]
    return fold_bias(model, *features)


def fold_bias(model: Any, demonstration_features: Tensor, other_features: Tensor) -> Bias:
    """Moves every score by minus the demonstrations' mean, in place.

    Both features: (n, hidden), the head's input at the last token, of demonstrations and of ranked completions.
    """
    weight = model.score.weight.detach().double().squeeze(0)
    demonstrations = demonstration_features.double()
    mean = float((demonstrations @ weight).mean())
    norm = final_norm(model)
    with torch.no_grad():
        if norm is not None and getattr(norm, "bias", None) is not None and float(weight @ weight) > 0:
            norm.bias -= (mean * weight / (weight @ weight)).to(norm.bias)
            return Bias(mean, 0.0)
        features = torch.cat([demonstrations, other_features.double()])
        direction = _constant_direction(features, demonstrations)
        model.score.weight -= (mean * direction).to(model.score.weight)
    return Bias(mean, abs(mean) * float((features @ direction).std(correction=0)))


def final_norm(model: Any) -> nn.Module | None:
    """The backbone's last norm: ln_f of GPT-2, final_layer_norm of GPT-NeoX, norm of Llama and Qwen."""
    backbone = model.base_model
    names = ("ln_f", "final_layer_norm", "final_layernorm", "norm")
    return next((getattr(backbone, name) for name in names if hasattr(backbone, name)), None)


def _constant_direction(features: Tensor, demonstrations: Tensor) -> Tensor:
    """(hidden,) float64 u: features @ u is as near 1 as a ridge allows, and on demonstrations exactly 1 on average."""
    n, hidden = features.shape
    gram = features.T @ features / n
    ridge = _RIDGE * gram.diagonal().mean() * torch.eye(hidden, dtype=gram.dtype, device=gram.device)
    direction = torch.linalg.solve(gram + ridge, features.mean(0))
    return direction / (demonstrations @ direction).mean()

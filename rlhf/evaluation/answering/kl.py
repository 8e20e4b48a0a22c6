"""How likely a model finds given responses, for the KL between two models on one's samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from rlhf.models.batches import length_buckets
from rlhf.rl.logprobs import token_logprobs

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKEN_BUDGET = 8192  # padded tokens in one forward pass


@torch.no_grad()
def response_logprobs(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    *,
    token_budget: int = TOKEN_BUDGET,
) -> list[float]:
    """log p(response | prompt) at temperature 1, in nats: summed over the response's tokens, its end token included.

    The softmax runs in float32, the sum in float64; logits are kept at response positions alone.
    """
    device = model.device
    sums = [0.0] * len(prompt_ids)
    totals = [len(p) + len(r) for p, r in zip(prompt_ids, response_ids, strict=True)]
    was_training = model.training
    model.eval()
    for bucket in length_buckets(totals, token_budget):
        width = max(totals[i] for i in bucket)
        keep = max(len(response_ids[i]) for i in bucket)
        if keep == 0:
            continue
        # Left padding ends every row at the same column, so one slice holds all responses.
        ids = torch.zeros((len(bucket), width), dtype=torch.long)
        for row, i in enumerate(bucket):
            ids[row, width - totals[i] :] = torch.tensor([*prompt_ids[i], *response_ids[i]])
        lengths = torch.tensor([totals[i] for i in bucket])
        positions = torch.arange(width) - (width - lengths)[:, None]
        logits = model(
            input_ids=ids.to(device),
            attention_mask=(positions >= 0).long().to(device),
            position_ids=positions.clamp(min=0).to(device),
            use_cache=False,
            logits_to_keep=keep + 1,
        ).logits[:, -keep - 1 : -1]  # the logits before a token predict it
        logprobs = token_logprobs(logits, ids[:, -keep:].to(device)).double().cpu()
        for row, i in enumerate(bucket):
            sums[i] = float(logprobs[row, keep - len(response_ids[i]) :].sum())
    model.train(was_training)
    return sums

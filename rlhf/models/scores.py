"""What a backbone and a scalar head give for rows of tokens."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf.models.batches import length_buckets, pad_right
from rlhf.models.lora import unwrap_lora

if TYPE_CHECKING:
    from torch import Tensor


def token_scores(
    model: Any, input_ids: Tensor, attention_mask: Tensor | None = None, position_ids: Tensor | None = None
) -> Tensor:
    """The scalar head's output at every position, (batch, seq) float32; input_ids and the rest are (batch, seq).

    Without a mask the rows must be padded on the right: causal attention keeps padding out of every earlier position.
    """
    hidden = hidden_states(model, input_ids, attention_mask, position_ids)
    return unwrap_lora(model).score(hidden).squeeze(-1).float()


def hidden_states(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor | None = None,
    position_ids: Tensor | None = None,
    **given: Any,
) -> Tensor:
    """What the head sees: final-norm output, (batch, seq, hidden), in the model's dtype.

    given: further keyword arguments of the model's forward.
    """
    from rlhf.models.sharding import begin_pass

    begin_pass(model)
    backbone = unwrap_lora(model).base_model
    tensors = {"attention_mask": attention_mask, "position_ids": position_ids}
    # Left out when absent: Bloom, which has no positions to number, does not even take the argument.
    named = {name: tensor for name, tensor in tensors.items() if tensor is not None}
    return backbone(input_ids=input_ids, use_cache=False, **named, **given).last_hidden_state


def last_hidden_states(model: Any, ids: Sequence[Sequence[int]], *, token_budget: int) -> Tensor:
    """The head's input at each sequence's last token, (n, hidden) in the model's dtype, without gradient."""
    import torch

    from rlhf.models.flat import can_run_flat, flat_attention, flat_groups, flatten
    from rlhf.models.last_layer import last_layer_only_at

    assert all(len(row) > 0 for row in ids), "a scored sequence has at least one token"
    all_lengths = [len(row) for row in ids]
    device = unwrap_lora(model).device
    features: list[Tensor] = [torch.empty(0)] * len(ids)
    was_training = model.training
    model.eval()
    try:
        with torch.no_grad():
            if can_run_flat(model):
                for group in flat_groups(all_lengths, token_budget):
                    flat = flatten([ids[i] for i in group], device=device)
                    ends = flat.starts + torch.tensor([all_lengths[i] for i in group], device=device) - 1
                    with flat_attention(model, flat) as given, last_layer_only_at(model, ends):
                        hidden = hidden_states(model, flat.input_ids, position_ids=flat.position_ids, **given)[0]
                    for index, row in zip(group, hidden[ends], strict=True):
                        features[index] = row
                return torch.stack(features)
            for bucket in length_buckets(all_lengths, token_budget):
                padded, lengths = pad_right([ids[i] for i in bucket], pad_token_id=0)
                hidden = hidden_states(model, padded.to(device))
                for index, row in zip(bucket, hidden[torch.arange(len(bucket)), lengths - 1], strict=True):
                    features[index] = row
    finally:
        model.train(was_training)
    return torch.stack(features)


def sequence_scores(model: Any, ids: Sequence[Sequence[int]], *, token_budget: int = 8192) -> Tensor:
    """The score of each whole sequence, (n,) float32 on the CPU, read at its last token; no gradient.

    ids: prompt + response + [end token if the response ended], without padding. Each is run once, beside others of
    its length, in batches of at most `token_budget` tokens.
    """
    import torch

    if not ids:
        return torch.empty(0)
    features = last_hidden_states(model, ids, token_budget=token_budget)
    with torch.no_grad():
        return unwrap_lora(model).score(features).squeeze(-1).float().cpu()

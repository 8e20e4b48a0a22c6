"""How well a model still predicts plain held-out text: what fine-tuning cost it of its pretraining.

InstructGPT calls that the alignment tax, and mixes pretraining gradients into PPO against it (arXiv:2203.02155,
section 4.2 and appendix E).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from rlhf.data.records import DataSource, Split
from rlhf.errors import UserError
from rlhf.pretraining.packed import PackedTexts
from rlhf.rl.logprobs import token_logprobs
from rlhf.runtime import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SEQUENCES = 128
LENGTH = 128  # tokens of a sequence, as stage=pretrain makes them; the model's context where that is less


def held_out_blocks(
    data: DataSource, tokenizer: PreTrainedTokenizerBase, context: int | None, *, sequences: int = SEQUENCES
) -> Tensor | None:
    """Held-out documents, an end token after each, (sequences, length) int64; None where the data has too few.

    context: the model's, in tokens, which no sequence is longer than; None: it has no limit.
    """
    if not data.has_texts:
        return None
    length = min(LENGTH, context or LENGTH)
    try:
        texts = data.texts(Split.evaluation)
        return PackedTexts(texts, tokenizer, length, "data.evaluation_fraction", most=sequences).blocks
    except UserError:
        return None  # nobody asked for this measure, so a file of a few documents is no reason to end a run


@torch.no_grad()
def text_loss(model: PreTrainedModel, blocks: Tensor, *, token_budget: int) -> float:
    """Mean -log p of each block's tokens after its first, in nats; softmax in float32, sum in float64.

    blocks: (sequences, length) int64, without padding. Each rank reads its share of them.
    """
    was_training = model.training
    model.eval()
    total = 0.0
    own = blocks[distributed.rank() :: distributed.world_size()].to(model.device)
    for part in own.split(max(1, token_budget // blocks.shape[1])) if len(own) else ():
        logits = model(input_ids=part, use_cache=False).logits[:, :-1]
        total -= float(token_logprobs(logits, part[:, 1:]).double().sum())
    model.train(was_training)
    return sum(distributed.from_every_rank(total)) / (blocks.shape[0] * (blocks.shape[1] - 1))

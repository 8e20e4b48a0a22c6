"""Pretraining: a small base model from nothing on plain text, tokenizer included."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from rlhf.data.encoding import IGNORED
from rlhf.data.records import Split
from rlhf.models.save import save_model
from rlhf.pretraining.base import build_model, train_tokenizer
from rlhf.pretraining.packed import PackedTexts
from rlhf.pretraining.text_loss import text_loss
from rlhf.runtime import distributed
from rlhf.training.callback import install
from rlhf.training.engine import pick_device
from rlhf.training.trainer import StageTrainer, train, training_arguments, whole_state_dict

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


_TOKEN_BUDGET = 8192  # of a forward pass that measures the loss


class PretrainTrainer(StageTrainer):
    stage = "pretrain"

    def blank(self, row: dict[str, Tensor]) -> dict[str, Tensor]:
        return {**row, "labels": torch.full_like(row["labels"], IGNORED)}


def run(context: StageContext) -> dict[str, float]:
    """Trains model.architecture on the data's text and saves it; returns its held-out loss, nats a token."""
    config, settings = context.config, context.config.pretrain
    texts = context.data.texts(Split.train)
    architecture = config.model.architecture
    tokenizer = distributed.from_main(lambda: train_tokenizer(texts, architecture.vocab_size, architecture.context))
    train_blocks, held_out_blocks = (
        PackedTexts(documents, tokenizer, settings.sequence_length, "pretrain.sequence_length")
        for documents in (texts, context.data.texts(Split.evaluation))
    )
    model = build_model(architecture, tokenizer, config.model.attn_implementation)

    arguments = training_arguments(
        config,
        settings.optim,
        stage="pretrain",
        checkpoints_dir=context.folder.checkpoints_dir,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        micro_batch_size=settings.batch_size,
        bf16=settings.bf16,
        logging_steps=10,
        eval_strategy="epoch",
        save_steps=settings.save_every,
    )
    pretraining = PretrainTrainer(
        model=model,
        args=TrainingArguments(**arguments),
        train_dataset=train_blocks,
        eval_dataset=held_out_blocks,
    )
    pretraining.train_lengths = [settings.sequence_length] * len(train_blocks)
    install(pretraining, context.tracker, "pretrain", enabled=config.tracker.progress)
    train(pretraining, context)

    finished: Any = build_model(architecture, tokenizer, config.model.attn_implementation)
    finished.load_state_dict(whole_state_dict(pretraining))
    # As it is shipped, half the bytes; the held-out loss is that of the rounded weights.
    finished.bfloat16().to(pick_device(config.launch))
    if distributed.is_main_process():
        save_model(finished, tokenizer, context.folder.model_dir)
    distributed.barrier()
    return {
        "eval/loss": text_loss(finished, held_out_blocks.blocks, token_budget=_TOKEN_BUDGET),
        "data/documents": len(texts),
        "data/tokens": train_blocks.blocks.numel(),
        "model/parameters": finished.num_parameters(),
    }

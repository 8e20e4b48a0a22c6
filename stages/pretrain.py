"""Pretraining: a small base model from nothing on plain text, tokenizer included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import TrainingArguments

from rlhf import trainer
from rlhf.data.records import Split
from rlhf.models import save_model
from rlhf.pretraining import PackedTexts, build_model, train_tokenizer
from rlhf.tracking_callback import install

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


class PretrainTrainer(trainer.StageTrainer):
    stage = "pretrain"


def run(context: StageContext) -> dict[str, float]:
    """Trains model.architecture on the data's text and saves it; returns its held-out loss, nats a token."""
    config, settings = context.config, context.config.pretrain
    texts = context.data.texts(Split.train)
    tokenizer = train_tokenizer(texts, config.model.architecture.vocab_size, config.model.architecture.context)
    train_blocks, held_out_blocks = (
        PackedTexts(documents, tokenizer, settings.sequence_length, "pretrain.sequence_length")
        for documents in (texts, context.data.texts(Split.evaluation))
    )
    model = build_model(config.model.architecture, tokenizer, config.model.attn_implementation)

    arguments = trainer.training_arguments(
        config,
        settings.optim,
        stage="pretrain",
        checkpoints_dir=context.folder.checkpoints_dir,
        epochs=settings.epochs,
        batch_size=settings.batch_size,
        micro_batch_size=settings.batch_size,
        rows=len(train_blocks),
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
    trainer.train(pretraining, context)

    model.bfloat16()  # as it is shipped, half the bytes; the held-out loss is that of the rounded weights
    held_out_loss = pretraining.evaluate()["eval_loss"]
    save_model(model, tokenizer, context.folder.model_dir)
    return {
        "eval/loss": held_out_loss,
        "data/documents": len(texts),
        "data/tokens": train_blocks.blocks.numel(),
        "model/parameters": model.num_parameters(),
    }

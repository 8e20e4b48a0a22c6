"""Pretraining: a small base model from nothing on plain text, tokenizer included."""

from __future__ import annotations

from typing import TYPE_CHECKING

from transformers import Trainer, TrainingArguments

from rlhf.data.records import Split
from rlhf.models import save_model
from rlhf.pretraining import PackedTexts, build_model, train_tokenizer
from rlhf.tracking_callback import install

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Trains model.architecture on the data's text and saves it; returns the last training and held-out loss."""
    config = context.config
    texts = context.data.texts(Split.train)
    tokenizer = train_tokenizer(texts, config.model.architecture.vocab_size, config.model.architecture.context)
    model = build_model(config.model.architecture, tokenizer)

    settings, optim = config.pretrain, config.pretrain.optim
    arguments = TrainingArguments(
        output_dir=str(context.folder.checkpoints_dir),
        seed=config.seed,
        use_cpu=config.launch.device.value == "cpu",
        num_train_epochs=settings.epochs,
        per_device_train_batch_size=settings.batch_size,
        per_device_eval_batch_size=settings.batch_size,
        bf16=settings.bf16,
        learning_rate=optim.lr,
        lr_scheduler_type="cosine_with_min_lr",
        lr_scheduler_kwargs={"min_lr_rate": optim.min_lr_ratio},
        warmup_steps=optim.warmup_ratio,
        adam_beta1=optim.betas[0],
        adam_beta2=optim.betas[1],
        adam_epsilon=optim.eps,
        weight_decay=optim.weight_decay,
        max_grad_norm=optim.max_grad_norm,
        logging_steps=20,
        eval_strategy="epoch",
        save_steps=settings.save_every,
        save_total_limit=2,
        report_to=[],
        dataloader_pin_memory=False,
    )
    trainer = Trainer(
        model=model,
        args=arguments,
        train_dataset=PackedTexts(texts, tokenizer, settings.sequence_length),
        eval_dataset=PackedTexts(context.data.texts(Split.evaluation), tokenizer, settings.sequence_length),
    )
    install(trainer, context.tracker, "pretrain", enabled=config.tracker.progress)
    resume = context.resume and any(context.folder.checkpoints_dir.glob("checkpoint-*"))
    train_loss = trainer.train(resume_from_checkpoint=resume).training_loss
    held_out_loss = trainer.evaluate()["eval_loss"]
    save_model(trainer.model, tokenizer, context.folder.model_dir)
    return {"train/mean_loss": train_loss, "eval/loss": held_out_loss}

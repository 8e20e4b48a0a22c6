"""The Trainer with K-way batches: one forward pass a completion, loss over all pairs of a prompt."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from transformers import Trainer, TrainingArguments

from rlhf.data.encoding import EncodedRanking, EncodedRows
from rlhf.models.batches import WIDTH_MULTIPLE, length_buckets, round_up
from rlhf.models.last_layer import last_layer_only_at
from rlhf.reward.rankings import KWayCollator, by_prompt
from rlhf.rl.kway import better_pairs, kway_loss
from rlhf.training import callback
from rlhf.training.trainer import StageTrainer, training_arguments

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


class KWayTrainer(StageTrainer, Trainer):
    """Trains on prompts with ranked completions; `evaluate_model` measures held-out rankings."""

    stage = "reward"

    def __init__(
        self, *, use_margins: bool, evaluate_model: Callable[[Any, int], dict[str, float]], **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self._use_margins = use_margins
        self._evaluate_model = evaluate_model
        self.train_lengths = kwargs["train_dataset"].lengths
        self._tokens = 0
        self._clock = (time.monotonic(), 0)
        # The loss below divides by the whole batch's prompts itself; without this, Trainer would divide once more.
        self.model_accepts_loss_kwargs = True

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor:
        """Prompts with a pair in one optimizer step, over all micro-batches and ranks."""
        counts = [better_pairs(batch["ranks"], batch["mask"]).any((1, 2)).sum() for batch in batch_samples]
        return self.accelerator.gather(torch.stack(counts).sum().to(device)).sum()

    def blank(self, row: EncodedRanking) -> EncodedRanking:
        """All completions tied, so that no pair is made of them."""
        return replace(row, ranking=replace(row.ranking, ranks=(0,) * len(row.sequences)))

    def compute_loss(
        self, model: Any, inputs: dict[str, Tensor], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Tensor:
        lengths = inputs["attention_mask"].sum(1)
        self._tokens += int(lengths.sum())
        logits = []
        buckets = self._buckets(lengths)
        for rows in buckets:
            width = round_up(int(lengths[rows].max()), WIDTH_MULTIPLE)
            given = {name: inputs[name][rows, :width] for name in ("input_ids", "attention_mask")}
            ends = torch.arange(len(rows), device=lengths.device) * width + lengths[rows] - 1
            with last_layer_only_at(self.model, ends):
                logits.append(model(**given).logits)
        place = inputs["place"][torch.cat(buckets)]
        scores = by_prompt(torch.cat(logits).squeeze(-1).float(), place, inputs["ranks"].shape)
        margins = inputs["margins"] if self._use_margins else None
        loss = kway_loss(scores, inputs["ranks"], inputs["mask"], margins, count=num_items_in_batch)
        # Gradients are averaged over ranks, and the count above is already that of all ranks.
        return loss * self.accelerator.num_processes

    def _buckets(self, lengths: Tensor) -> list[Tensor]:
        """Which rows share a forward pass: those of like length on a CPU, where padding costs more than a pass does.

        Several ranks must run equally many passes when they share a model's shards: there and on a GPU it is one.
        """
        if lengths.device.type != "cpu" or self.accelerator.num_processes > 1:
            return [torch.arange(len(lengths), device=lengths.device)]
        return [torch.tensor(rows) for rows in length_buckets(lengths.tolist(), sys.maxsize)]

    def evaluate(self, *args: Any, **kwargs: Any) -> dict[str, float]:
        if self.state.global_step >= self.state.max_steps:
            return {}  # the finished model is measured as it is saved, bias and all
        metrics = self._evaluate_model(self.model, self.state.global_step)
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            then, tokens = self._clock
            self._clock = (time.monotonic(), self._tokens)
            logs["train/tokens_per_second"] = (self._tokens - tokens) / max(self._clock[0] - then, 1e-9)
        super().log(logs, start_time)


def build_trainer(
    context: StageContext,
    model: Any,
    pad_token_id: int,
    rankings: EncodedRows[EncodedRanking],
    evaluate_model: Callable[[Any, int], dict[str, float]],
) -> KWayTrainer:
    config = context.config
    every = config.reward.evaluate_every
    arguments = training_arguments(
        config,
        config.reward.optim,
        stage="reward",
        checkpoints_dir=context.folder.checkpoints_dir,
        epochs=config.reward.epochs,
        batch_size=config.reward.batch_size,
        micro_batch_size=config.reward.micro_batch_size_per_device,
        eval_strategy="steps" if every else "epoch",
        eval_steps=every or None,
        save_strategy="steps" if every else "epoch",
        save_steps=every or 500,
    )
    trainer = KWayTrainer(
        use_margins=config.reward.margin,
        evaluate_model=evaluate_model,
        model=model,
        args=TrainingArguments(**arguments),
        data_collator=KWayCollator(pad_token_id),
        train_dataset=rankings,
        eval_dataset=[],
    )
    callback.install(trainer, context.tracker, "reward model", enabled=config.tracker.progress)
    return trainer

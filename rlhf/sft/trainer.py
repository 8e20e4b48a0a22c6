"""SFT by TRL's trainer, with a loss over response tokens."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import torch
from datasets import Dataset
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trl import SFTConfig, SFTTrainer

from rlhf.config import Quantization, SelectBy
from rlhf.data.encoding import IGNORED, context_of
from rlhf.models.last_layer import last_layer_only_at
from rlhf.models.load import torch_dtype
from rlhf.models.lora import unwrap_lora
from rlhf.models.save import save_model
from rlhf.sft.held_out import METRICS, HeldOutSampler
from rlhf.sft.rows import max_length, row_lengths
from rlhf.training import callback
from rlhf.training.rows import FilledRows
from rlhf.training.trainer import StageTrainer, training_arguments, whole_state_dict

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf.training.context import StageContext


class ResponseTrainer(StageTrainer, SFTTrainer):
    """TRL's trainer with held-out loss per token, whatever the batches, and samples at every evaluation."""

    stage = "sft"

    def __init__(self, *, sampler: HeldOutSampler, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self._sampler = sampler
        self.train_lengths = row_lengths(cast(Dataset, self.train_dataset))
        self._held_out_sums = [0.0, 0.0]  # loss, tokens
        self._clock = (time.monotonic(), 0.0)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        """TRL's on a GPU, where it skips unlabelled positions; ours on a CPU, where it would score them all."""
        if self.args.device.type != "cpu":
            return super().compute_loss(model, inputs, return_outputs, num_items_in_batch)
        if model.training:
            ids = inputs["input_ids"]
            self._total_train_tokens += (
                int(inputs["attention_mask"].sum()) if "attention_mask" in inputs else ids.numel()
            )
        loss, tokens = labelled_loss(model, inputs, self.model)
        # Gradients are averaged over ranks, and num_items_in_batch counts the tokens of all of them.
        return (
            loss / tokens if num_items_in_batch is None else loss * self.accelerator.num_processes / num_items_in_batch
        )

    def prediction_step(self, model: Any, inputs: Any, *args: Any, **kwargs: Any) -> tuple[Any, Any, Any]:
        loss, logits, labels = super().prediction_step(model, inputs, *args, **kwargs)
        tokens = float((inputs["labels"][:, 1:] != IGNORED).sum())
        if tokens:  # the mean over none is no number
            self._held_out_sums[0] += float(loss) * tokens
            self._held_out_sums[1] += tokens
        return loss, logits, labels

    def _get_eval_sampler(self, eval_dataset: Any) -> Any:
        """In order; several ranks fill up their last batches, which Accelerate would do with rows that count twice."""
        fill = -len(eval_dataset) % (self.args.per_device_eval_batch_size * self.args.world_size)
        rows = len(eval_dataset)
        return [*range(rows), *[rows] * fill] if self.args.world_size > 1 else range(rows)

    def get_eval_dataloader(self, eval_dataset: Any = None) -> DataLoader[Any]:
        rows: Any = self.eval_dataset if eval_dataset is None else eval_dataset
        filled = FilledRows(rows, self.blank(rows[0])) if self.args.world_size > 1 else rows
        return super().get_eval_dataloader(filled)

    def evaluation_loop(self, *args: Any, **kwargs: Any) -> Any:
        self._held_out_sums = [0.0, 0.0]
        output = super().evaluation_loop(*args, **kwargs)
        loss, tokens = self.reduced_sum(self._held_out_sums)
        metrics = cast(dict[str, float], output.metrics)
        metrics["eval_loss"] = loss / tokens
        score = self._sampler(self.model, self.state.global_step)
        if score is not None:
            metrics["eval_score"] = score
        return output

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        if "loss" in logs:
            then, tokens = self._clock
            self._clock = (time.monotonic(), float(self._total_train_tokens))
            logs["train/tokens_per_second"] = (self._clock[1] - tokens) / max(self._clock[0] - then, 1e-9)
        super().log(logs, start_time)

    def packing_metrics(self) -> dict[str, float]:
        """The share of packed rows that is text; {} where rows are not packed."""
        settings = cast(SFTConfig, self.args)
        if not settings.packing:
            return {}
        assert settings.max_length is not None, "build_trainer sets it"
        return {"data/packing_efficiency": sum(self.train_lengths) / (len(self.train_lengths) * settings.max_length)}

    def final_metrics(self) -> dict[str, float]:
        """The loss of the last training step, and what the kept checkpoint had on held-out rows."""
        kept = self.state.best_global_step if self.args.load_best_model_at_end else self.state.global_step
        evaluation = next(
            (e for e in reversed(self.state.log_history) if "eval_loss" in e and e["step"] == kept),
            {},
        )
        metrics = {"train/loss": self.last_loss, "train/steps": float(self.state.global_step)}
        metrics |= {
            f"eval/{name}": evaluation[f"eval_{name}"] for name in ("loss", "score") if f"eval_{name}" in evaluation
        }
        return metrics


def labelled_loss(model: Any, inputs: Mapping[str, Any], unwrapped: Any) -> tuple[Tensor, int]:
    """Sum over labelled tokens of -log p, float32, and their number; logits are made at their positions alone.

    unwrapped: the Transformers or PEFT model inside `model`, which may be wrapped for several ranks.
    The positions are rounded up to a multiple of 64, as CPUs compile their matrix products anew for every size.
    """
    labels = inputs["labels"][:, 1:]
    rows, columns = (labels != IGNORED).nonzero(as_tuple=True)
    count = len(rows)
    fill = -count % 64
    rows, columns = (torch.cat([index, index.new_zeros(fill)]) for index in (rows, columns))
    head = unwrap_lora(unwrapped).get_output_embeddings()
    handle = head.register_forward_pre_hook(lambda module, hidden: (hidden[0][rows, columns],))
    try:
        given = {name: value for name, value in inputs.items() if name != "labels"}
        width = inputs["labels"].shape[1]
        with last_layer_only_at(unwrapped, (rows * width + columns)[:count]):
            logits = model(**given, use_cache=False).logits[:count]
    finally:
        handle.remove()
    targets = labels[rows[:count], columns[:count]]
    return F.cross_entropy(logits.float(), targets, reduction="sum"), count


def build_trainer(
    context: StageContext,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    rows: Dataset,
    held_out_rows: Dataset,
    sampler: HeldOutSampler,
) -> ResponseTrainer:
    config = context.config
    select = config.sft.select_by
    micro = config.sft.micro_batch_size_per_device
    arguments = training_arguments(
        config,
        config.sft.optim,
        stage="sft",
        checkpoints_dir=context.folder.checkpoints_dir,
        epochs=config.sft.epochs,
        batch_size=config.sft.batch_size,
        micro_batch_size=micro,
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=select != SelectBy.last,
        metric_for_best_model=None if select == SelectBy.last else METRICS[select],
        greater_is_better=select == SelectBy.reward_model,
        prediction_loss_only=True,
        # A batch of a multiple of 64 tokens: oneDNN builds a kernel for each new shape.
        pad_to_multiple_of=max(64 // micro, 4),
        max_length=max_length(context, context_of(model.config)),
        packing=config.sft.packing,
        eval_packing=False,
        dataset_kwargs={"skip_prepare_dataset": not config.sft.packing},
    )
    trainer = ResponseTrainer(
        sampler=sampler,
        model=model,
        args=SFTConfig(**arguments),
        train_dataset=rows,
        # Sorted by length, so that batches pad little; the loss is per token and does not mind.
        eval_dataset=held_out_rows.select(np.argsort(row_lengths(held_out_rows), kind="stable")),
        processing_class=tokenizer,
    )
    if config.model.quantization != Quantization.none:
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.data = parameter.data.float()  # TRL has rounded the adapters to bfloat16
    callback.install(trainer, context.tracker, "SFT", enabled=config.tracker.progress)
    return trainer


def save(trainer: ResponseTrainer, tokenizer: PreTrainedTokenizerBase, context: StageContext) -> None:
    """Writes model/ in model.dtype; under ZeRO every rank takes part and rank 0 writes."""
    state = whole_state_dict(trainer)
    if trainer.args.should_save:
        dtype = torch_dtype(context.config.model.dtype)
        save_model(trainer.model, tokenizer, context.folder.model_dir, state_dict=state, dtype=dtype)
    trainer.accelerator.wait_for_everyone()

"""SFT on TRL's SFTTrainer: rows and their loss masks, the trainer, selection by reward model, sampled responses."""

from __future__ import annotations

import random
import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pyarrow.compute
import torch
from datasets import Dataset, concatenate_datasets
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader
from trl import SFTConfig, SFTTrainer

from rlhf import models, tracking_callback
from rlhf.config import Quantization, RolloutConfig, SelectBy, SubsetRule
from rlhf.data.encoding import IGNORED, EncodedDemonstration, EncodedRows, Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.engine import pick_device
from rlhf.errors import UserError
from rlhf.last_layer import last_layer_only_at
from rlhf.ppo.rollout import generate
from rlhf.tracking import progress
from rlhf.trainer import FilledRows, StageTrainer, training_arguments, whole_state_dict
from rlhf.zero import gathered

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlhf.pipeline import StageContext

SAMPLES_SHOWN = 8
_SCORED_AT_ONCE = 256
JUDGED_PROMPTS = 128


def training_rows(context: StageContext, encoder: Encoder, demonstrations: EncodedRows[Any]) -> Dataset:
    """Prompts and responses, and pretraining text as far as sft.pretraining_fraction wants it: input_ids and labels."""
    rows = labelled(demonstrations)
    more = pretraining_rows(context, encoder, len(rows))
    return concatenate_datasets([rows, Dataset.from_list(more, rows.features)]) if more else rows


def labelled(demonstrations: EncodedRows[Any]) -> Dataset:
    """What a trainer reads of them: input_ids and labels, IGNORED where there is no loss."""
    return demonstrations.table.select_columns(["input_ids", "labels"])


def pretraining_rows(context: StageContext, encoder: Encoder, demonstrations: int) -> list[dict[str, list[int]]]:
    """Documents with loss on every token, `sft.pretraining_fraction` of all rows, drawn by the seed."""
    fraction = context.config.sft.pretraining_fraction
    count = round(demonstrations * fraction / (1 - fraction))
    if count == 0:
        return []
    texts = context.data.texts(Split.train)
    chosen = random.Random(f"pretraining rows:{context.config.seed}").choices(range(len(texts)), k=count)
    rows = []
    for index in chosen:
        ids = encoder.template.response_ids(texts[index])[: max_length(context, encoder.context)]
        rows.append({"input_ids": ids, "labels": ids})
    return rows


def row_lengths(rows: Dataset) -> list[int]:
    """Tokens of each row."""
    lengths: list[int] = []
    for batch in rows.select_columns(["input_ids"]).with_format("arrow").iter(10000):
        lengths += pyarrow.compute.list_value_length(batch.column("input_ids")).to_pylist()
    return lengths


def loss_tokens(rows: Dataset) -> int:
    """Tokens that have a loss."""
    total = 0
    for batch in rows.select_columns(["labels"]).with_format("arrow").iter(10000):
        labels = batch.column("labels").combine_chunks().flatten().to_numpy(zero_copy_only=False)
        total += int((labels != IGNORED).sum())
    return total


def chosen_subset(
    context: StageContext, demonstrations: EncodedRows[EncodedDemonstration], judge: RewardModelJudge | None
) -> EncodedRows[EncodedDemonstration]:
    """sft.subset demonstrations, the best of every task by sft.subset_rule, in the order they had.

    Tasks in turn give their next best until there are enough, so that what is chosen stays as varied as the data
    (LIMA, arXiv:2305.11206, took its 1,000 by quality and diversity); without tasks it is the best of all.
    """
    settings = context.config.sft
    if settings.subset is None or settings.subset >= len(demonstrations):
        return demonstrations
    worth = _worths(context, demonstrations, judge)
    by_task: dict[str, list[int]] = {}
    for index in sorted(range(len(demonstrations)), key=lambda i: (-worth[i], i)):
        by_task.setdefault(demonstrations[index].prompt.task, []).append(index)
    turns = sorted((place, task, index) for task, indices in by_task.items() for place, index in enumerate(indices))
    return demonstrations.select(sorted(index for _, _, index in turns[: settings.subset]))


def _worths(
    context: StageContext, demonstrations: EncodedRows[EncodedDemonstration], judge: RewardModelJudge | None
) -> list[float]:
    """What each demonstration is worth by sft.subset_rule; the largest is best."""
    rule = context.config.sft.subset_rule
    if rule == SubsetRule.random:
        draw = random.Random(f"subset:{context.config.seed}")
        return [draw.random() for _ in demonstrations]
    if rule == SubsetRule.longest:
        return [float(len(demonstration.response_ids)) for demonstration in demonstrations]
    assert judge is not None, "the config requires a reward model for this rule"
    device = pick_device(context.config.launch)
    scores: list[float] = []
    starts = range(0, len(demonstrations), _SCORED_AT_ONCE)
    for start in progress(starts, "scoring demonstrations", "batch", context.config.tracker.progress, leave=False):
        batch = demonstrations[start : start + _SCORED_AT_ONCE]
        scores += judge([d.prompt_ids + d.response_ids for d in batch], device)
    return scores


def max_length(context: StageContext, model_context: int | None) -> int:
    """Tokens in the longest row: what the config allows, within the model's context."""
    allowed = context.config.data.max_prompt_tokens + context.config.data.max_response_tokens
    return allowed if model_context is None else min(allowed, model_context)


class RewardModelJudge:
    """Mean score that a reward model gives to responses."""

    def __init__(self, context: StageContext, template: ChatTemplate) -> None:
        path = context.config.sft.reward_model
        assert path is not None, "the config requires one for select_by=reward_model"
        model_config = context.config.model
        tokenizer = models.load_tokenizer(path, trust_remote_code=model_config.trust_remote_code)
        same_words = tokenizer.get_vocab() == template.tokenizer.get_vocab()
        if not same_words or ChatTemplate(tokenizer, context.config.data.template).hash != template.hash:
            raise UserError(
                f"sft.reward_model={path} has another {'chat template' if same_words else 'vocabulary'} than the model "
                "in training; name one trained from the same base, or use sft.select_by=validation_loss."
            )
        self.model: Any = models.freeze(models.load_reward_model(path, model_config))

    def __call__(self, sequences: Sequence[Sequence[int]], device: torch.device) -> list[float]:
        scores: list[float] = models.sequence_scores(self.model.to(device), sequences).tolist()
        return scores


class HeldOutSampler:
    """Responses of the model in training to held-out prompts: some for the sample table, more for a judge."""

    def __init__(
        self,
        context: StageContext,
        template: ChatTemplate,
        held_out: Sequence[EncodedDemonstration],
        judge: RewardModelJudge | None,
    ) -> None:
        self._context = context
        self._template = template
        self._judge = judge
        self._held_out = held_out

    def __call__(self, model: Any, step: int) -> float | None:
        """Logs a few samples at `step`; the judge's mean score, None without a judge."""
        config, tokenizer = self._context.config, self._template.tokenizer
        rollout, chosen = self._fitting(model)
        if not chosen:
            return None
        with gathered(model):
            responses = generate(
                model,
                [demonstration.prompt_ids for demonstration in chosen],
                eos_token_id=tokenizer.eos_token_id,
                pad_token_id=tokenizer.pad_token_id,
                config=rollout,
                generator_seed=config.seed,
            ).response_ids
        scores: list[float] | None = None
        if self._judge is not None:
            device = next(model.parameters()).device
            sequences = [d.prompt_ids + ids for d, ids in zip(chosen, responses, strict=True)]
            scores = self._judge(sequences, device)
        rows = []
        for index, (demonstration, ids) in enumerate(zip(chosen[:SAMPLES_SHOWN], responses, strict=False)):
            row: dict[str, Any] = {
                "prompt": self._template.prompt_text(demonstration.prompt),
                "response": self._template.decode(ids),
                "demonstration": self._template.decode(demonstration.response_ids),
            }
            rows.append(row if scores is None else {**row, "score": scores[index]})
        self._context.tracker.samples(step, rows)
        return None if scores is None else sum(scores) / len(scores)

    def _fitting(self, model: Any) -> tuple[RolloutConfig, list[EncodedDemonstration]]:
        """The first held-out prompts that leave the context room for a whole response."""
        rollout = self._context.config.rollout
        limit = context_of(model.config)
        wanted = SAMPLES_SHOWN if self._judge is None else JUDGED_PROMPTS
        fitting = [d for d in self._held_out if limit is None or len(d.prompt_ids) + rollout.max_new_tokens <= limit]
        if self._judge is not None and not fitting:
            raise UserError(
                f"No held-out prompt leaves rollout.max_new_tokens={rollout.max_new_tokens} tokens of the model's "
                f"context of {limit}; lower it, or use sft.select_by=validation_loss."
            )
        return rollout, fitting[:wanted]


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
    head = models.unwrap_lora(unwrapped).get_output_embeddings()
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
        rows=len(rows),
        eval_strategy="epoch",
        save_strategy="epoch",
        load_best_model_at_end=select != SelectBy.last,
        metric_for_best_model=None if select == SelectBy.last else _METRICS[select],
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
    tracking_callback.install(trainer, context.tracker, "SFT", enabled=config.tracker.progress)
    return trainer


_METRICS = {SelectBy.validation_loss: "eval_loss", SelectBy.reward_model: "eval_score"}


def save(trainer: ResponseTrainer, tokenizer: PreTrainedTokenizerBase, context: StageContext) -> None:
    """Writes model/ in model.dtype; under ZeRO every rank takes part and rank 0 writes."""
    state = whole_state_dict(trainer)
    if trainer.args.should_save:
        dtype = models.torch_dtype(context.config.model.dtype)
        models.save_model(trainer.model, tokenizer, context.folder.model_dir, state_dict=state, dtype=dtype)
    trainer.accelerator.wait_for_everyone()

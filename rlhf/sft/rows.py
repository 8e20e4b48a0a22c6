"""Demonstrations as rows that a trainer takes."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING, Any

import pyarrow.compute
from datasets import Dataset, concatenate_datasets

from rlhf.data.encoding import IGNORED, EncodedRows, Encoder
from rlhf.data.records import Split

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


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


def max_length(context: StageContext, model_context: int | None) -> int:
    """Tokens in the longest row: what the config allows, within the model's context."""
    allowed = context.config.data.max_prompt_tokens + context.config.data.max_response_tokens
    return allowed if model_context is None else min(allowed, model_context)

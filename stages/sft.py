"""Supervised fine-tuning: a base model learns to answer, from demonstrations (arXiv:2203.02155, section 3.5).

Loss on the response alone, cosine schedule, held-out loss and sampled responses after every epoch; the checkpoint kept
is the best by held-out loss, by a reward model's score of sampled responses (as InstructGPT chose), or the last.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from rlhf import models, sft, trainer
from rlhf.config import SelectBy
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Trains, saves model/, and returns the final metrics."""
    config = context.config
    base = str(context.parents["base"])
    tokenizer = models.load_tokenizer(base, trust_remote_code=config.model.trust_remote_code)
    model = models.load_causal_lm(
        base, config.model, dtype=trainer.training_dtype(config), quantization=config.model.quantization
    )
    models.disable_dropout(model)
    if config.sft.residual_dropout > 0:
        models.residual_dropout(model, config.sft.residual_dropout)

    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    template = ChatTemplate(tokenizer, config.data.template)
    encoder = Encoder(template, config.data, bad_rows, context=context_of(model.config))
    demonstrations = encoder.demonstrations(context.data.demonstrations(Split.train))
    held_out = encoder.demonstrations(context.data.demonstrations(Split.evaluation))
    rows = [sft.demonstration_row(demonstration) for demonstration in demonstrations]
    rows += sft.pretraining_rows(context, encoder, len(rows))
    held_out_rows = [sft.demonstration_row(demonstration) for demonstration in held_out]

    if not config.sft.packing:  # packed rows are all long
        trainer.choose_attention(model, config, max(len(row["input_ids"]) for row in rows))
    if config.model.lora.r > 0:
        model = models.add_lora(model, config.model.lora)
    models.freeze_parts([model], config.model.freeze)
    judge = sft.RewardModelJudge(context, template) if config.sft.select_by == SelectBy.reward_model else None
    sampler = sft.HeldOutSampler(context, template, held_out, judge)
    sft_trainer = sft.build_trainer(context, model, tokenizer, rows, held_out_rows, sampler)
    trainer.train(sft_trainer, context)

    final = sft_trainer.final_metrics()
    sft.save(sft_trainer, tokenizer, context)
    return {**final, **_counts(rows, bad_rows, len(demonstrations))}


def _counts(rows: Sequence[Mapping[str, list[int]]], bad_rows: BadRows, demonstrations: int) -> dict[str, float]:
    response_tokens = sum(label != sft.IGNORED for row in rows for label in row["labels"])
    return {
        "data/demonstrations": demonstrations,
        "data/pretraining_rows": len(rows) - demonstrations,
        "data/loss_tokens": response_tokens,
        "data/bad_rows": bad_rows.count,
    }

"""Supervised fine-tuning: a base model learns to answer, from demonstrations (arXiv:2203.02155, section 3.5).

Loss on the response alone, cosine schedule, held-out loss and sampled responses after every epoch; the checkpoint kept
is the best by held-out loss, by a reward model's score of sampled responses (as InstructGPT chose), or the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf import models, sft, trainer
from rlhf.config import SelectBy
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate

if TYPE_CHECKING:
    from datasets import Dataset

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
    context_length = context_of(model.config)
    encoder = Encoder(template, config.data, bad_rows, context=context_length, show_progress=config.tracker.progress)
    judge = sft.RewardModelJudge(context, template) if config.sft.needs_reward_model else None
    loss_on = config.sft.loss_on
    given = encoder.demonstrations(context.data.demonstrations(Split.train), loss_on)
    demonstrations = sft.chosen_subset(context, given, judge)
    held_out = encoder.demonstrations(context.data.demonstrations(Split.evaluation), loss_on)
    rows = sft.training_rows(context, encoder, demonstrations)

    if not config.sft.packing:  # packed rows are all long
        trainer.choose_attention(model, config, max(sft.row_lengths(rows)))
    if config.model.lora.r > 0:
        model = models.add_lora(model, config.model.lora)
    models.freeze_parts([model], config.model.freeze)
    by_judge = config.sft.select_by == SelectBy.reward_model
    sampler = sft.HeldOutSampler(context, template, held_out, judge if by_judge else None)
    sft_trainer = sft.build_trainer(context, model, tokenizer, rows, sft.labelled(held_out), sampler)
    trainer.train(sft_trainer, context)

    final = sft_trainer.final_metrics()
    sft.save(sft_trainer, tokenizer, context)
    return {**final, **_counts(rows, encoder, demonstrations), **sft_trainer.packing_metrics()}


def _counts(rows: Dataset, encoder: Encoder, demonstrations: Sequence[object]) -> dict[str, float]:
    return {
        "data/demonstrations": len(demonstrations),
        "data/pretraining_rows": len(rows) - len(demonstrations),
        "data/loss_tokens": sft.loss_tokens(rows),
        "data/bad_rows": encoder.bad_rows.count,
        "data/truncated_prompts": encoder.truncated_prompts,
        "data/cut_responses": encoder.cut_responses,
    }

"""Supervised fine-tuning: a base model learns to answer, from demonstrations (arXiv:2203.02155, section 3.5).

Loss on the response alone, cosine schedule, held-out loss and sampled responses after every epoch; the checkpoint kept
is the best by held-out loss, by a reward model's score of sampled responses (as InstructGPT chose), or the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf.config import SelectBy
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.models.freezing import disable_dropout, freeze_parts, residual_dropout
from rlhf.models.load import load_causal_lm
from rlhf.models.lora import add_lora
from rlhf.models.tokenizers import load_tokenizer
from rlhf.sft.held_out import HeldOutSampler, RewardModelJudge
from rlhf.sft.rows import labelled, loss_tokens, row_lengths, training_rows
from rlhf.sft.subset import chosen_subset
from rlhf.sft.trainer import build_trainer, save
from rlhf.training.trainer import choose_attention, train, training_dtype

if TYPE_CHECKING:
    from datasets import Dataset

    from rlhf.training.context import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Trains, saves model/, and returns the final metrics."""
    config = context.config
    base = str(context.parents["base"])
    tokenizer = load_tokenizer(base, trust_remote_code=config.model.trust_remote_code)
    model = load_causal_lm(base, config.model, dtype=training_dtype(config), quantization=config.model.quantization)
    disable_dropout(model)
    if config.sft.residual_dropout > 0:
        residual_dropout(model, config.sft.residual_dropout)

    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    template = ChatTemplate(tokenizer, config.data.template)
    context_length = context_of(model.config)
    encoder = Encoder(template, config.data, bad_rows, context=context_length, show_progress=config.tracker.progress)
    judge = RewardModelJudge(context, template) if config.sft.needs_reward_model else None
    loss_on = config.sft.loss_on
    given = encoder.demonstrations(context.data.demonstrations(Split.train), loss_on)
    demonstrations = chosen_subset(context, given, judge)
    held_out = encoder.demonstrations(context.data.demonstrations(Split.evaluation), loss_on)
    rows = training_rows(context, encoder, demonstrations)

    if not config.sft.packing:  # packed rows are all long
        choose_attention(model, config, max(row_lengths(rows)))
    if config.model.lora.r > 0:
        model = add_lora(model, config.model.lora)
    freeze_parts([model], config.model.freeze)
    by_judge = config.sft.select_by == SelectBy.reward_model
    sampler = HeldOutSampler(context, template, held_out, judge if by_judge else None)
    sft_trainer = build_trainer(context, model, tokenizer, rows, labelled(held_out), sampler)
    train(sft_trainer, context)

    final = sft_trainer.final_metrics()
    save(sft_trainer, tokenizer, context)
    return {**final, **_counts(rows, encoder, demonstrations), **sft_trainer.packing_metrics()}


def _counts(rows: Dataset, encoder: Encoder, demonstrations: Sequence[object]) -> dict[str, float]:
    return {
        "data/demonstrations": len(demonstrations),
        "data/pretraining_rows": len(rows) - len(demonstrations),
        "data/loss_tokens": loss_tokens(rows),
        "data/bad_rows": encoder.bad_rows.count,
        "data/truncated_prompts": encoder.truncated_prompts,
        "data/cut_responses": encoder.cut_responses,
    }

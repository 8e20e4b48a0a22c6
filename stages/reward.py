"""The reward model: from ranked completions of a prompt to one score a response.

K completions of a prompt are one batch element, each is run once, and all their pairs enter the loss
(arXiv:2203.02155, section 3.5). A bias sets demonstrations to 0 on average; it is folded into the weights, so that
the saved folder needs nothing but AutoModelForSequenceClassification.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.models import adapters
from rlhf.models.freezing import disable_dropout, freeze_parts
from rlhf.models.load import load_reward_model, torch_dtype
from rlhf.models.lora import add_lora
from rlhf.models.save import save_model
from rlhf.models.sharding import gathered
from rlhf.models.tokenizers import load_tokenizer
from rlhf.reward import evaluation
from rlhf.reward.bias import SEQUENCES, set_bias
from rlhf.reward.collect import bias_demonstrations, collect_rankings, drop_tied
from rlhf.reward.trainer import build_trainer
from rlhf.runtime import distributed
from rlhf.training.engine import pick_device
from rlhf.training.trainer import choose_attention, train, training_dtype, whole_state_dict

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Trains, saves model/, and returns the saved model's metrics on held-out rankings."""
    config = context.config
    policy = str(context.parents["policy"])
    tokenizer = load_tokenizer(policy, trust_remote_code=config.model.trust_remote_code)
    template = ChatTemplate(tokenizer, config.data.template)
    given = collect_rankings(context, template)
    kept = {split: drop_tied(rankings, split) for split, rankings in given.items()}

    model: Any = load_reward_model(
        policy,
        config.model,
        dtype=training_dtype(config),
        quantization=config.model.quantization,
        fresh_head=True,
    )
    pad_token_id = model.config.get_text_config().pad_token_id
    disable_dropout(model)
    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    encoder = Encoder(
        template, config.data, bad_rows, context=context_of(model.config), show_progress=config.tracker.progress
    )
    rankings = encoder.rankings(kept[Split.train])
    held_out = encoder.rankings(kept[Split.evaluation])
    demonstrations = encoder.demonstrations(bias_demonstrations(context, kept[Split.train]))

    def evaluate(scorer: Any, step: int) -> dict[str, float]:
        metrics, samples = evaluation.evaluate(scorer, held_out, template)
        context.tracker.samples(step, samples)
        return metrics

    choose_attention(model, config, max(rankings.lengths))
    if config.model.lora.r > 0:
        model = add_lora(model, config.model.lora)
    freeze_parts([model], config.model.freeze)
    reward_trainer = build_trainer(context, model, pad_token_id, rankings, evaluate)
    train(reward_trainer, context)

    finished: Any = load_reward_model(policy, config.model, dtype=torch.float32, fresh_head=True)
    trained = whole_state_dict(reward_trainer)
    finished.load_state_dict(trained)
    finished.to(pick_device(config.launch))
    bias = set_bias(
        finished,
        evaluation.demonstration_sequences(demonstrations[:SEQUENCES]),
        [ids for ranking in rankings[:SEQUENCES] for ids in ranking.sequences],
    )
    adapter: adapters.Adapter | None = None
    if config.model.lora.r > 0:
        with gathered(reward_trainer.model):
            adapter = adapters.adapter_of(reward_trainer.model, context.parents["policy"])
        adapter = adapter.with_changed_modules(finished, trained)
    if distributed.is_main_process():
        dtype = torch_dtype(config.model.dtype)
        save_model(finished, tokenizer, context.folder.model_dir, dtype=dtype, adapter=adapter)
    distributed.barrier()

    saved: Any = load_reward_model(str(context.folder.model_dir), config.model)
    saved.to(pick_device(config.launch))
    step = reward_trainer.state.global_step
    metrics = evaluate(saved, step)
    metrics["reward/demonstration_score"] = evaluation.mean_demonstration_score(saved, demonstrations)
    metrics["reward/bias"] = bias.removed
    metrics["reward/bias_residual"] = bias.residual
    context.tracker.log(step, metrics)
    return {
        **metrics,
        "train/loss": reward_trainer.last_loss,
        "train/steps": float(step),
        "data/rankings": float(len(rankings)),
        "data/tied_rankings": float(sum(len(given[split]) - len(kept[split]) for split in Split)),
        "data/bias_demonstrations": float(len(demonstrations)),
        "data/bad_rows": float(bad_rows.count),
        "data/truncated_prompts": float(encoder.truncated_prompts),
        "data/cut_responses": float(encoder.cut_responses),
        "data/alike_rankings": float(encoder.alike_rankings),
    }

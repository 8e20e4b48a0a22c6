"""Samples of held-out prompts while SFT trains, and how a reward model judges them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch

from rlhf.config import RolloutConfig, SelectBy
from rlhf.data.encoding import EncodedDemonstration, context_of
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models.freezing import freeze
from rlhf.models.load import load_reward_model
from rlhf.models.scores import sequence_scores
from rlhf.models.sharding import gathered
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.rollout import generate

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


SAMPLES_SHOWN = 8
JUDGED_PROMPTS = 128


class RewardModelJudge:
    """Mean score that a reward model gives to responses."""

    def __init__(self, context: StageContext, template: ChatTemplate) -> None:
        path = context.config.sft.reward_model
        assert path is not None, "the config requires one for select_by=reward_model"
        model_config = context.config.model
        tokenizer = load_tokenizer(path, trust_remote_code=model_config.trust_remote_code)
        same_words = tokenizer.get_vocab() == template.tokenizer.get_vocab()
        if not same_words or ChatTemplate(tokenizer, context.config.data.template).hash != template.hash:
            raise UserError(
                f"sft.reward_model={path} has another {'chat template' if same_words else 'vocabulary'} than the model "
                "in training; name one trained from the same base, or use sft.select_by=validation_loss."
            )
        self.model: Any = freeze(load_reward_model(path, model_config))

    def __call__(self, sequences: Sequence[Sequence[int]], device: torch.device) -> list[float]:
        scores: list[float] = sequence_scores(self.model.to(device), sequences).tolist()
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


METRICS = {SelectBy.validation_loss: "eval_loss", SelectBy.reward_model: "eval_score"}

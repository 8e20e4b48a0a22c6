"""How the policy does on held-out prompts: score, KL, length, and gold where the data knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.config import Config
from rlhf.data.encoding import EncodedPrompt, context_of
from rlhf.data.records import Prompt
from rlhf.models.sharding import gathered
from rlhf.ppo.engines.engine import RolloutEngine
from rlhf.ppo.experience import gold_scores, kl_to_reference, pack, roll_out, score
from rlhf.ppo.order import seed_for
from rlhf.ppo.roles import Roles
from rlhf.ppo.training import Training
from rlhf.pretraining.text_loss import held_out_blocks, text_loss
from rlhf.training.context import StageContext

SAMPLES_SHOWN = 16


class Evaluation:
    """The same questions again and again, asked of the policy that would be saved."""

    def __init__(
        self, context: StageContext, roles: Roles, engine: RolloutEngine, prompts: Sequence[EncodedPrompt]
    ) -> None:
        self._context, self._roles, self._engine, self._prompts = context, roles, engine, prompts
        self._text = held_out_blocks(context.data, roles.tokenizer, context_of(roles.policy.config))

    def of(self, training: Training, step: int) -> dict[str, float]:
        """Metrics after `step` iterations; its samples are written down, and the best policy is kept where asked."""
        context, roles = self._context, self._roles
        with training.evaluated_policy():
            metrics, rows = evaluate(roles, self._engine, self._prompts, context.data.gold, context.config)
            if self._text is not None:
                budget = context.config.ppo.micro_batch_tokens
                with gathered(roles.policy):
                    metrics["eval/text_loss"] = text_loss(roles.policy, self._text, token_budget=budget)
            if training.best is not None:
                training.best.offer(step, metrics)
        context.tracker.samples(step, rows)
        return metrics


def evaluate(
    roles: Roles,
    engine: RolloutEngine,
    prompts: Sequence[EncodedPrompt],
    gold: Callable[[Prompt, str], float] | None,
    config: Config,
) -> tuple[dict[str, float], list[dict[str, Any]]]:
    """Means over one sampled response a prompt, and the first few as rows for a table.

    The random numbers are the same at every call of a run, so that two calls differ by the policy alone.
    """
    episodes = roll_out(roles, engine, prompts, seed=seed_for(config.seed, "evaluation"))
    budget = config.ppo.micro_batch_tokens
    columns = score(roles, episodes, token_budget=budget).columns()
    kl = kl_to_reference(
        roles, pack(roles, episodes), temperature=config.rollout.temperature, token_budget=budget
    ).tolist()
    columns["kl"] = kl
    known = gold_scores(gold, episodes)
    if known is not None:
        columns["gold"] = known
    metrics = {f"eval/{name}": sum(values) / len(values) for name, values in columns.items()}
    metrics["eval/response_tokens"] = sum(map(len, episodes.response_ids)) / len(prompts)
    metrics["eval/ended"] = sum(episodes.ended) / len(prompts)
    rows = [
        {
            "prompt": roles.template.prompt_text(episodes.prompts[i].prompt),
            "response": episodes.texts[i],
            **{name: values[i] for name, values in columns.items()},
        }
        for i in range(min(SAMPLES_SHOWN, len(prompts)))
    ]
    return metrics, rows

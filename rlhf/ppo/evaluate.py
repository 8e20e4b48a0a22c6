"""How the policy does on held-out prompts: score, KL, length, and gold where the data knows it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from rlhf.config import Config
from rlhf.data.encoding import EncodedPrompt
from rlhf.data.records import Prompt
from rlhf.ppo.engines.engine import RolloutEngine
from rlhf.ppo.experience import gold_scores, kl_to_reference, pack, roll_out, score
from rlhf.ppo.order import seed_for
from rlhf.ppo.roles import Roles

SAMPLES_SHOWN = 16


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

"""What a response is worth to PPO: the scores of reward models and of a Python function, added with their weights."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.config import OnBadRow
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import EncodedPrompt, Encoder, context_of
from rlhf.data.records import Split
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models.scores import sequence_scores
from rlhf.models.sharding import gathered
from rlhf.ppo.reward_fn import RewardFunction, load_reward_fn
from rlhf.runtime.folder import StageFolder

if TYPE_CHECKING:
    from rlhf.training.context import StageContext

log = logging.getLogger("rlhf")

REWARD_MODELS = "reward_models/"  # prefix of the parents that ppo.reward_models names
_DEMONSTRATIONS = 256  # scored to see whether a reward model's bias was set
_FAR = 0.5  # standard deviations of score that the demonstrations' mean may be from 0


@dataclass(frozen=True)
class Scores:
    """Of a batch of responses, float32."""

    total: Tensor  # (batch,), the weighted sum: what PPO learns from
    by_source: dict[str, Tensor]  # (batch,) each, unweighted; empty where the total is one source's score as it is

    def columns(self) -> dict[str, list[float]]:
        """`score`, and `score_NAME` for every source."""
        return {"score": self.total.tolist()} | {f"score_{name}": row.tolist() for name, row in self.by_source.items()}

    def metrics(self) -> dict[str, float]:
        """The batch's mean score of every source."""
        return {f"objective/score_{name}": float(row.mean()) for name, row in self.by_source.items()}


@dataclass(frozen=True)
class Scorer:
    """Reward models, frozen, and at most one function, by the names that ppo.reward_weights gives them."""

    reward_models: dict[str, Any]
    reward_fn: RewardFunction | None = None
    weights: Mapping[str, float] = field(default_factory=dict)  # a source without one has 1

    def __call__(
        self,
        template: ChatTemplate,
        prompts: Sequence[EncodedPrompt],
        response_ids: Sequence[Sequence[int]],
        texts: Sequence[str],
        *,
        token_budget: int,
        device: torch.device,
    ) -> Scores:
        """Each source's scores of prompt + response (with its end token where it ended), and their weighted sum."""
        whole = [[*p.ids, *r] for p, r in zip(prompts, response_ids, strict=True)]
        by_source = {}
        for name, model in self.reward_models.items():
            with gathered(model):
                by_source[name] = sequence_scores(model, whole, token_budget=token_budget).to(device)
        if self.reward_fn is not None:
            records = [encoded.prompt for encoded in prompts]
            read = [template.prompt_text(record) for record in records]
            by_source["reward_fn"] = torch.tensor(self.reward_fn(read, texts, records), device=device)
        weights = [self.weights.get(name, 1.0) for name in by_source]
        total = sum(weight * scores for weight, scores in zip(weights, by_source.values(), strict=True))
        assert isinstance(total, Tensor), "there is at least one source"
        return Scores(total, {} if weights == [1.0] else by_source)


def reward_paths(parents: Mapping[str, Path]) -> dict[str, Path]:
    """The reward models among a stage's parents, by the names that ppo.reward_weights gives them."""
    return {
        role.removeprefix(REWARD_MODELS): path
        for role, path in parents.items()
        if role == "reward_model" or role.startswith(REWARD_MODELS)
    }


def load_scorer(
    context: StageContext, reward_models: Mapping[str, Any], template: ChatTemplate, device: torch.device
) -> Scorer:
    """These reward models, frozen, on `device`, and the function that the config names.

    Says so when the bias of one of the models looks unset.
    """
    ppo = context.config.ppo
    function = load_reward_fn(ppo.reward_fn) if ppo.reward_fn is not None else None
    for name, path in reward_paths(context.parents).items():
        _check_bias(name, path, reward_models[name].to(device), context, template)
    return Scorer(dict(reward_models), function, ppo.reward_weights)


def _check_bias(name: str, path: Path, model: Any, context: StageContext, template: ChatTemplate) -> None:
    """One line where demonstrations do not score about 0, as they should (arXiv:2203.02155, section 3.5).

    PPO does not mind a constant, but the penalty for a response that does not end, a cut score and the value model's
    start do. The reward stage has set the bias and says so in its manifest; other models are asked.
    """
    manifest = (StageFolder(path.parent).manifest if path.name == "model" else None) or {}
    if "reward/bias" in (manifest.get("metrics") or {}):
        return
    try:
        demonstrations = context.data.demonstrations(Split.train)[:_DEMONSTRATIONS]
        skipped = BadRows(OnBadRow.skip, None)
        encoder = Encoder(template, context.config.data, skipped, context=context_of(model.config))
        sequences = [d.prompt_ids + d.response_ids for d in encoder.demonstrations(demonstrations)]
    except UserError:
        return  # the data has no demonstrations to ask about
    scores = sequence_scores(model, sequences, token_budget=context.config.ppo.micro_batch_tokens)
    mean, spread = float(scores.mean()), float(scores.std(correction=0))
    if abs(mean) > _FAR * spread:
        log.warning(
            "ppo: %s (%s) gives demonstrations %.3g on average, with a standard deviation of %.3g; its bias seems "
            "never to have been set, and ppo.missing_eos_penalty and ppo.score_clip are meant for a mean of 0",
            name,
            path,
            mean,
            spread,
        )

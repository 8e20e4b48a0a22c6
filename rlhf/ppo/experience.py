"""Experience: what PPO learns from, computed once from a batch of responses."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedTokenizerBase

from rlhf.config import PPOConfig
from rlhf.data.encoding import EncodedPrompt, context_of
from rlhf.data.records import Prompt
from rlhf.data.templates import ChatTemplate
from rlhf.models import freeze, sequence_scores
from rlhf.ppo.batching import (
    MicroBatch,
    Sequences,
    micro_batches,
    response_logits,
    response_values,
    sequences,
)
from rlhf.ppo.engines.engine import RolloutEngine
from rlhf.rl.gae import gae
from rlhf.rl.kl import k1, k3, masked_sums
from rlhf.rl.logprobs import entropy, token_logprobs
from rlhf.rl.losses import explained_variance, masked_mean
from rlhf.rl.rewards import adjusted_scores, token_rewards
from rlhf.rl.whitening import whiten


class Reference:
    """The policy as it was before PPO: a frozen copy, or with LoRA the policy itself with its adapter off."""

    def __init__(self, policy: Any) -> None:
        self._policy = policy
        self._copy = None if hasattr(policy, "peft_config") else freeze(copy.deepcopy(policy))

    @contextmanager
    def model(self) -> Iterator[nn.Module]:
        if self._copy is not None:
            yield self._copy
        else:
            with self._policy.disable_adapter():
                yield self._policy


@dataclass(frozen=True)
class Roles:
    """The four models and what their texts are made with."""

    policy: Any
    reference: Reference
    reward_model: Any
    value_model: Any
    tokenizer: PreTrainedTokenizerBase
    template: ChatTemplate

    @property
    def device(self) -> torch.device:
        return next(iter(self.policy.parameters())).device


@dataclass(frozen=True)
class Episodes:
    """Prompts, the policy's responses, and nothing that a model says about them."""

    prompts: list[EncodedPrompt]
    response_ids: list[list[int]]
    ended: list[bool]
    texts: list[str]  # responses as people and the gold judge read them


@dataclass(frozen=True)
class Experience:
    """A batch of responses and all that the update needs. Tensors are float32 and 0 where response_mask is False."""

    batch: Sequences
    minibatches: list[list[int]]  # rows of the first epoch's minibatches, whose forward passes these numbers come from
    scores: Tensor  # (batch,) the reward model's, as it gave them
    old_logprobs: Tensor  # (batch, response)
    ref_logprobs: Tensor  # (batch, response)
    values: Tensor  # (batch, response)
    rewards: Tensor  # (batch, response)
    advantages: Tensor  # (batch, response) whitened if asked
    returns: Tensor  # (batch, response) advantages before whitening, plus values
    entropy: Tensor  # (batch, response) of the policy, nats

    def metrics(self) -> dict[str, float]:
        mask = self.batch.response_mask
        log_ratio = k1(self.old_logprobs, self.ref_logprobs)
        kl = masked_sums(log_ratio, mask)
        measured = {
            "objective/score": self.scores.mean(),
            "objective/kl": kl.mean(),
            "objective/kl_k3": masked_sums(k3(self.old_logprobs, self.ref_logprobs), mask).mean(),
            "objective/kl_per_token": kl.sum() / mask.sum(),
            "objective/reward": self.rewards.sum(-1).mean(),
            "policy/entropy": masked_mean(self.entropy, mask),
            "value/explained_variance": explained_variance(self.values, self.returns, mask),
            "rollout/response_tokens": mask.sum() / len(mask),
        }
        return {name: float(value) for name, value in measured.items()}


def roll_out(roles: Roles, engine: RolloutEngine, prompts: Sequence[EncodedPrompt], *, seed: int) -> Episodes:
    """One response of the policy, as it is now, to each prompt."""
    engine.sync(roles.policy)  # here and nowhere else, so that no caller can forget it
    rollout = engine.generate([prompt.ids for prompt in prompts], seed=seed)
    texts = [roles.template.decode(ids) for ids in rollout.response_ids]
    return Episodes(list(prompts), rollout.response_ids, rollout.ended, texts)


def score(roles: Roles, episodes: Episodes, *, token_budget: int) -> Tensor:
    """The reward model's score of prompt + response (with its end token where it ended), (batch,) float32."""
    whole = [[*p.ids, *r] for p, r in zip(episodes.prompts, episodes.response_ids, strict=True)]
    return sequence_scores(roles.reward_model, whole, token_budget=token_budget).to(roles.device)


def gold_scores(gold: Callable[[Prompt, str], float] | None, episodes: Episodes) -> list[float] | None:
    """The source's noise-free scores; None where it has no such judge."""
    if gold is None:
        return None
    return [gold(encoded.prompt, text) for encoded, text in zip(episodes.prompts, episodes.texts, strict=True)]


def pack(roles: Roles, episodes: Episodes) -> Sequences:
    """The episodes' tokens on the policy's device."""
    prompt_ids = [prompt.ids for prompt in episodes.prompts]
    return sequences(prompt_ids, episodes.response_ids, device=roles.device, context=context_of(roles.policy.config))


@torch.no_grad()
def logprobs_of(model: Any, micro: MicroBatch, temperature: float) -> Tensor:
    """Log-probs of the micro-batch's response tokens, (tokens,) float32, no gradient."""
    return token_logprobs(response_logits(model, micro), micro.response_ids, temperature=temperature)


@torch.no_grad()
def kl_to_reference(roles: Roles, batch: Sequences, *, temperature: float, token_budget: int) -> Tensor:
    """k1 summed over each response, (batch,) float32, in nats."""
    kl = torch.zeros_like(batch.response_mask, dtype=torch.float32)
    for micro in micro_batches(batch, range(len(batch.lengths)), token_budget):
        logprobs = logprobs_of(roles.policy, micro, temperature)
        with roles.reference.model() as reference:
            _put(kl, micro, k1(logprobs, logprobs_of(reference, micro, temperature)))
    return masked_sums(kl, batch.response_mask)


@torch.no_grad()
def make_experience(
    roles: Roles,
    batch: Sequences,
    scores: Tensor,
    ended: Sequence[bool],
    minibatches: list[list[int]],
    *,
    config: PPOConfig,
    kl_coef: float,
    temperature: float,
) -> Experience:
    """Log-probs, values, rewards, advantages and returns of a batch, one forward pass of each model.

    The forward passes run on the micro-batches of the first epoch, so its ratios start at exactly 1: another shape
    would round otherwise.
    """
    old_logprobs, ref_logprobs, values, entropies = (
        torch.zeros_like(batch.response_mask, dtype=torch.float32) for _ in range(4)
    )
    for rows in minibatches:
        for micro in micro_batches(batch, rows, config.micro_batch_tokens):
            logits = response_logits(roles.policy, micro)
            _put(old_logprobs, micro, token_logprobs(logits, micro.response_ids, temperature=temperature))
            _put(entropies, micro, entropy(logits, temperature=temperature))
            with roles.reference.model() as reference:
                _put(ref_logprobs, micro, logprobs_of(reference, micro, temperature))
            _put(values, micro, response_values(roles.value_model, micro))
    adjusted = adjusted_scores(
        scores,
        torch.tensor(ended, device=scores.device),
        score_clip=config.score_clip,
        missing_eos_penalty=config.missing_eos_penalty,
        missing_eos_score=config.missing_eos_score,
    )
    mask = batch.response_mask
    rewards = token_rewards(adjusted, old_logprobs, ref_logprobs, mask, kl_coef=kl_coef)
    learned = whiten(rewards, mask, shift_mean=False) if config.whiten_rewards else rewards
    advantages = gae(learned, values, mask, gamma=config.gamma, gae_lambda=config.gae_lambda)
    returns = (advantages + values).where(mask, 0.0)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    return Experience(
        batch, minibatches, scores, old_logprobs, ref_logprobs, values, rewards, advantages, returns, entropies
    )


def _put(into: Tensor, micro: MicroBatch, flat: Tensor) -> None:
    """Write the micro-batch's (tokens,) numbers to their places in a (batch, response) tensor."""
    block = torch.zeros_like(into[micro.rows])
    block[micro.response_mask] = flat
    into[micro.rows] = block

"""Experience: what PPO learns from, computed once from a batch of responses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from rlhf.config import Advantage, KLPlacement, PPOConfig
from rlhf.data.encoding import EncodedPrompt, context_of
from rlhf.data.records import Prompt
from rlhf.models.flat import can_run_flat
from rlhf.models.sharding import is_sharded
from rlhf.ppo.batching import (
    MicroBatch,
    Sequences,
    own_micro_batches,
    response_logprobs,
    response_values,
    sequences,
)
from rlhf.ppo.engines.engine import RolloutEngine
from rlhf.ppo.roles import Roles
from rlhf.ppo.scoring import Scores
from rlhf.rl.baselines import group_normalised, leave_one_out
from rlhf.rl.gae import gae
from rlhf.rl.importance import truncated_ratio
from rlhf.rl.kl import k1, k3, masked_sums
from rlhf.rl.losses import explained_variance, masked_mean
from rlhf.rl.rewards import adjusted_scores, length_penalties, token_rewards
from rlhf.rl.whitening import whiten
from rlhf.runtime import distributed


@dataclass(frozen=True)
class Episodes:
    """Prompts, the policy's responses, and nothing that a model says about them."""

    prompts: list[EncodedPrompt]
    response_ids: list[list[int]]
    ended: list[bool]
    texts: list[str]  # responses as people and the gold judge read them
    rollout_logprobs: list[list[float]] | None = None  # of response_ids, as the sampler drew them; None: not asked

    def metrics(self, gold: Callable[[Prompt, str], float] | None) -> dict[str, float]:
        metrics = {"rollout/ended": sum(self.ended) / len(self.ended)}
        known = gold_scores(gold, self)
        return metrics if known is None else {**metrics, "objective/gold": sum(known) / len(known)}


@dataclass(frozen=True)
class Experience:
    """A batch of responses and all that the update needs. Tensors are float32 and 0 where response_mask is False."""

    batch: Sequences
    minibatches: list[list[int]]  # rows of the first epoch's minibatches, whose forward passes these numbers come from
    scores: Tensor  # (batch,) the reward model's, as it gave them, or the weighted sum of several sources'
    old_logprobs: Tensor  # (batch, response)
    ref_logprobs: Tensor  # (batch, response)
    values: Tensor | None  # (batch, response); None without a value model
    rewards: Tensor  # (batch, response)
    advantages: Tensor  # (batch, response) whitened if asked
    returns: Tensor | None  # (batch, response) advantages before whitening, plus values; None without a value model
    entropy: Tensor  # (batch, response) of the policy, nats
    kl_coef: float  # the KL penalty's weight, reward per nat
    score_std: float | None = None  # what scores were divided by for the rewards; None: left as they were
    rollout_logprobs: Tensor | None = None  # (batch, response) the sampler's; None where nothing is corrected
    correction: Tensor | None = None  # (batch, response) weights in the policy's loss; None: all 1

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
            "rollout/response_tokens": mask.sum() / len(mask),
        }
        if self.values is not None and self.returns is not None:
            measured["value/explained_variance"] = explained_variance(self.values, self.returns, mask)
        if self.rollout_logprobs is not None and self.correction is not None:
            measured["rollout/logprob_gap"] = masked_mean((self.old_logprobs - self.rollout_logprobs).abs(), mask)
            measured["rollout/correction"] = masked_mean(self.correction, mask)
        metrics = {name: float(value) for name, value in measured.items()}
        return metrics if self.score_std is None else {**metrics, "objective/score_std": self.score_std}


def roll_out(roles: Roles, engine: RolloutEngine, prompts: Sequence[EncodedPrompt], *, seed: int) -> Episodes:
    """One response of the policy, as it is now, to each prompt. Every rank draws its share, and gets all of them."""
    engine.sync(roles.policy)  # here and nowhere else, so that no caller can forget it
    rows = distributed.share(range(len(prompts)))
    own = engine.generate([prompt.ids for prompt in prompts], rows, seed=seed)
    response_ids = distributed.whole(own.response_ids, len(prompts))
    ended = distributed.whole(own.ended, len(prompts))
    logprobs = None if own.logprobs is None else distributed.whole(own.logprobs, len(prompts))
    texts = [roles.template.decode(ids) for ids in response_ids]
    return Episodes(list(prompts), response_ids, ended, texts, logprobs)


def score(roles: Roles, episodes: Episodes, *, token_budget: int) -> Scores:
    """What the responses are worth to the reward models and the function; every rank asks about its share."""
    own = roles.scorer(
        roles.template,
        distributed.share(episodes.prompts),
        distributed.share(episodes.response_ids),
        distributed.share(episodes.texts),
        token_budget=token_budget,
        device=roles.device,
    )

    def of_all(scores: Tensor) -> Tensor:
        return torch.tensor(distributed.whole(scores.tolist(), len(episodes.texts)), device=roles.device)

    return Scores(of_all(own.total), {name: of_all(scores) for name, scores in own.by_source.items()})


def gold_scores(gold: Callable[[Prompt, str], float] | None, episodes: Episodes) -> list[float] | None:
    """The source's noise-free scores; None where it has no such judge."""
    if gold is None:
        return None
    return [gold(encoded.prompt, text) for encoded, text in zip(episodes.prompts, episodes.texts, strict=True)]


def pack(roles: Roles, episodes: Episodes) -> Sequences:
    """The episodes' tokens on the policy's device."""
    prompt_ids = [prompt.ids for prompt in episodes.prompts]
    return sequences(
        prompt_ids,
        episodes.response_ids,
        device=roles.device,
        context=context_of(roles.policy.config),
        flat=all(can_run_flat(model) for model in (roles.policy, roles.value_model) if model is not None),
    )


@torch.no_grad()
def kl_to_reference(roles: Roles, batch: Sequences, *, temperature: float, token_budget: int) -> Tensor:
    """k1 summed over each response, (batch,) float32, in nats."""
    kl = torch.zeros_like(batch.response_mask, dtype=torch.float32)
    even = is_sharded(roles.policy)
    for micro, counts in own_micro_batches(batch, range(len(batch.lengths)), token_budget, even=even):
        logprobs, _ = response_logprobs(roles.policy, micro, temperature)
        with roles.reference.model() as reference:
            ref_logprobs, _ = response_logprobs(reference, micro, temperature)
        if counts:
            _put(kl, micro, k1(logprobs, ref_logprobs))
    distributed.sum_over_ranks(kl)
    return masked_sums(kl, batch.response_mask)


@dataclass(frozen=True)
class Responses:
    """A batch of responses with all that is known of them before the models of PPO have seen them; of all ranks."""

    batch: Sequences
    scores: Tensor  # (batch,) the reward model's, as it gave them
    ended: Sequence[bool]  # whether the end token is there, row by row
    score_std: float | None = None  # what scores are divided by; None leaves them
    rollout_logprobs: Sequence[Sequence[float]] | None = None  # the sampler's; read where they are corrected for


@torch.no_grad()
def make_experience(
    roles: Roles,
    responses: Responses,
    minibatches: list[list[int]],
    *,
    config: PPOConfig,
    kl_coef: float,
    temperature: float,
) -> Experience:
    """Log-probs, values, rewards, advantages and returns of a batch, one forward pass of each model.

    minibatches: rows of the first epoch's. The forward passes run on its micro-batches, so its ratios start at exactly
    1: another shape would round otherwise. Each rank runs its share of the passes and gets the whole batch's numbers.
    """
    batch, mask = responses.batch, responses.batch.response_mask
    passed = _pass(roles, batch, minibatches, temperature=temperature, token_budget=config.micro_batch_tokens)
    rewards = token_rewards(
        _final_scores(responses, config),
        passed.old_logprobs,
        passed.ref_logprobs,
        mask,
        kl_coef=kl_coef if config.kl.placement == KLPlacement.reward else 0.0,
        estimator=config.kl.estimator.value,
    )
    learned = whiten(rewards, mask, shift_mean=False) if config.whiten_rewards else rewards
    advantages = estimate_advantages(learned, passed.values, mask, config)
    returns = (advantages + passed.values).where(mask, 0.0)
    if config.whiten_advantages:
        advantages = whiten(advantages, mask)
    sampled, correction = _correction(responses, passed.old_logprobs, config)
    has_values = roles.value_model is not None
    return Experience(
        batch=batch,
        minibatches=minibatches,
        scores=responses.scores,
        old_logprobs=passed.old_logprobs,
        ref_logprobs=passed.ref_logprobs,
        values=passed.values if has_values else None,
        rewards=rewards,
        advantages=advantages,
        returns=returns if has_values else None,
        entropy=passed.entropy,
        kl_coef=kl_coef,
        score_std=responses.score_std,
        rollout_logprobs=sampled,
        correction=correction,
    )


@dataclass(frozen=True)
class _Passed:
    """What the models say of a batch, (batch, response) float32 each; 0 where response_mask is False."""

    old_logprobs: Tensor
    ref_logprobs: Tensor
    values: Tensor  # zeros without a value model
    entropy: Tensor


def _pass(
    roles: Roles, batch: Sequences, minibatches: list[list[int]], *, temperature: float, token_budget: int
) -> _Passed:
    passed = _Passed(*(torch.zeros_like(batch.response_mask, dtype=torch.float32) for _ in range(4)))
    even = is_sharded(roles.policy)
    for rows in minibatches:
        for micro, counts in own_micro_batches(batch, rows, token_budget, even=even):
            logprobs, entropy = response_logprobs(roles.policy, micro, temperature, with_entropy=True)
            assert entropy is not None
            said = [(passed.old_logprobs, logprobs), (passed.entropy, entropy)]
            with roles.reference.model() as reference:
                said.append((passed.ref_logprobs, response_logprobs(reference, micro, temperature)[0]))
            if roles.value_model is not None:
                said.append((passed.values, response_values(roles.value_model, micro)))
            for into, flat in said if counts else ():
                _put(into, micro, flat)
    # Every row has its numbers from one rank and zeros from the others: from here on all ranks know the whole batch,
    # and whatever is whitened, averaged or decided is so over all of it.
    distributed.sum_over_ranks(passed.old_logprobs, passed.ref_logprobs, passed.values, passed.entropy)
    return passed


def _final_scores(responses: Responses, config: PPOConfig) -> Tensor:
    """What each response's last token is paid, (batch,)."""
    adjusted = adjusted_scores(
        responses.scores,
        torch.tensor(responses.ended, device=responses.scores.device),
        score_clip=config.score_clip,
        missing_eos_penalty=config.missing_eos_penalty,
        missing_eos_score=config.missing_eos_score,
        std=1.0 if responses.score_std is None else responses.score_std,
    )
    if config.length_penalty == 0:
        return adjusted
    lengths = responses.batch.response_mask.sum(-1)
    return adjusted - length_penalties(lengths, penalty=config.length_penalty, free=config.length_penalty_from)


def _correction(responses: Responses, old_logprobs: Tensor, config: PPOConfig) -> tuple[Tensor | None, Tensor | None]:
    """The sampler's log-probs as a tensor and the weights that correct for them; None for both where nothing is."""
    if responses.rollout_logprobs is None or config.rollout_correction_cap == 0:
        return None, None
    mask = responses.batch.response_mask
    sampled = torch.zeros_like(old_logprobs)
    sampled[mask] = torch.tensor([x for row in responses.rollout_logprobs for x in row], device=mask.device)
    return sampled, truncated_ratio(old_logprobs, sampled, mask, cap=config.rollout_correction_cap)


def estimate_advantages(rewards: Tensor, values: Tensor, mask: Tensor, config: PPOConfig) -> Tensor:
    """By ppo.advantage, (batch, response) float32, not whitened, 0 where mask is False; rewards and values likewise.

    rloo and group take a response as one action: its reward is the sum over its tokens, so that the KL penalty of the
    whole response is in it, and every token has its advantage. `values` is read by gae alone.
    """
    if config.advantage == Advantage.gae:
        return gae(rewards, values, mask, gamma=config.gamma, gae_lambda=config.gae_lambda)
    against_the_group = leave_one_out if config.advantage == Advantage.rloo else group_normalised
    return against_the_group(rewards.sum(-1), config.samples_per_prompt)[:, None].where(mask, 0.0)


def _put(into: Tensor, micro: MicroBatch, flat: Tensor) -> None:
    """Write the micro-batch's (tokens,) numbers to their places in a (batch, response) tensor."""
    block = torch.zeros_like(into[micro.rows])
    block[micro.response_mask] = flat
    into[micro.rows] = block

"""The update: several passes over one batch of experience, each in minibatches of one optimizer step."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from rlhf.config import KLPlacement, LossMean, PPOConfig
from rlhf.ppo.batching import MicroBatch, own_micro_batches, response_logprobs, response_values
from rlhf.ppo.ema import EMA
from rlhf.ppo.experience import Experience
from rlhf.ppo.order import permutation, seed_for
from rlhf.rl.kl import k3
from rlhf.rl.losses import kl_loss, masked_mean, policy_loss, sequence_weights, value_loss
from rlhf.runtime import distributed
from rlhf.training.engine import NonFiniteLossError, Trained


def split_minibatches(count: int, parts: int, seed: int) -> list[list[int]]:
    """Rows 0 to count - 1, shuffled by the seed, in `parts` equal minibatches."""
    order = permutation(count, seed)
    size = count // parts
    return [order[start : start + size] for start in range(0, size * parts, size)]


def update(
    policy: Trained | None,
    value_model: Trained | None,
    experience: Experience,
    config: PPOConfig,
    *,
    temperature: float,
    seed: int,
    pretraining: Tensor | None = None,
    ema: EMA | None = None,
) -> dict[str, float]:
    """Train policy and value model on one batch: config.epochs passes of config.num_minibatches steps.

    policy, value_model: None leaves that one as it is.
    pretraining: (steps * sequences a step, sequence_length) int64, text whose loss joins each step (ptx).
    ema: moved after every step.
    A step before which policy/approx_kl exceeds config.target_kl is not taken, nor is any after it.
    Returns means over steps taken of the losses and the like; policy/ratio_max is the largest of all.
    Raises NonFiniteLossError before the step that a loss or gradient would have spoilt.
    """
    steps: list[dict[str, float]] = []
    total_steps = config.epochs * config.num_minibatches
    stopped = False
    for rows in _minibatches(experience, config, seed):
        metrics = _accumulate(policy, value_model, experience, rows, config, temperature)
        stopped = config.target_kl is not None and metrics.get("policy/approx_kl", 0.0) > config.target_kl
        if stopped:
            for engine in filter(None, (policy, value_model)):
                engine.clear()
            break
        if policy is not None and pretraining is not None:
            text = pretraining.chunk(total_steps)[len(steps)]
            metrics["policy/ptx_loss"] = accumulate_ptx(
                policy, text, coef=config.ptx.coef, token_budget=config.micro_batch_tokens
            )
        _refuse_non_finite(metrics)
        if policy is not None:
            metrics["optim/grad_norm"] = policy.step()
            if ema is not None:
                ema.update()
        if value_model is not None:
            metrics["optim/value_grad_norm"] = value_model.step()
        steps.append(metrics)
    means = {name: sum(step[name] for step in steps) / len(steps) for name in steps[0]}
    if policy is not None:
        means["policy/ratio_max"] = max(step["policy/ratio_max"] for step in steps)
    if config.target_kl is not None:
        means["policy/early_stop"] = float(stopped)
    return means


def _minibatches(experience: Experience, config: PPOConfig, seed: int) -> Iterator[list[int]]:
    """Rows of every minibatch of the update, epoch by epoch; the first epoch's are those of the experience."""
    yield from experience.minibatches
    for epoch in range(1, config.epochs):
        yield from split_minibatches(len(experience.scores), config.num_minibatches, seed_for(seed, "epoch", epoch))


def _accumulate(
    policy: Trained | None,
    value_model: Trained | None,
    experience: Experience,
    rows: Sequence[int],
    config: PPOConfig,
    temperature: float,
) -> dict[str, float]:
    """Add the gradients of this rank's share of a minibatch, each divided by the whole minibatch's tokens.

    The metrics are the whole minibatch's, on every rank.
    """
    batch = experience.batch
    count = int(batch.response_mask[rows].sum())
    weights = None
    if config.loss_mean == LossMean.sequence:
        weights = sequence_weights(batch.response_mask, mean_length=count / len(rows))
    sums: dict[str, Tensor] = {}
    ratios: list[float] = []
    even = any(engine.even_passes for engine in (policy, value_model) if engine is not None)
    for micro, counts in own_micro_batches(batch, rows, config.micro_batch_tokens, even=even):
        parts: dict[str, Tensor] = {}
        if policy is not None:
            loss, parts, largest = _policy_loss(policy, experience, micro, config, temperature, count, weights)
            policy.backward(loss if counts else 0.0 * loss)
        if value_model is not None:
            loss, measured = _value_loss(value_model, experience, micro, config, count)
            value_model.backward(loss if counts else 0.0 * loss)
            parts |= measured
        if counts:
            ratios += [largest] if policy is not None else []
            sums = {name: part + sums.get(name, 0.0) for name, part in parts.items()}
    own = {name: float(total) for name, total in sums.items()}
    every = distributed.from_every_rank((own, max(ratios, default=0.0)))
    names = dict.fromkeys(name for metrics, _ in every for name in metrics)  # a rank may have had no row
    metrics = {name: sum(of_rank.get(name, 0.0) for of_rank, _ in every) for name in names}
    return metrics | ({"policy/ratio_max": max(largest for _, largest in every)} if policy is not None else {})


def _policy_loss(
    policy: Trained,
    experience: Experience,
    micro: MicroBatch,
    config: PPOConfig,
    temperature: float,
    count: int,
    weights: Tensor | None,
) -> tuple[Tensor, dict[str, Tensor], float]:
    """A micro-batch's loss, its share of the minibatch's metrics, and its largest ratio."""
    old_logprobs = micro.select(experience.old_logprobs)
    everything = torch.ones_like(old_logprobs, dtype=torch.bool)
    in_mean = micro.select(weights) if weights is not None else None
    # What is a mean over sampled tokens is corrected for who sampled them; entropy is over all tokens there are.
    of_samples = in_mean
    if experience.correction is not None:
        correction = micro.select(experience.correction)
        of_samples = correction if in_mean is None else in_mean * correction
    logprobs, entropy = response_logprobs(policy.model, micro, temperature, with_entropy=config.entropy_coef > 0)
    loss, clipfrac = policy_loss(
        logprobs,
        old_logprobs,
        micro.select(experience.advantages),
        everything,
        clip_range=config.clip_range,
        dual_clip=config.dual_clip,
        count=count,
        weights=of_samples,
    )
    now = logprobs.detach()
    parts = {
        "policy/loss": loss.detach(),
        "policy/clipfrac": clipfrac,
        "policy/approx_kl": k3(old_logprobs, now).sum() / count,
    }
    if config.kl.placement == KLPlacement.loss:
        kl = kl_loss(
            logprobs,
            old_logprobs,
            micro.select(experience.ref_logprobs),
            everything,
            estimator=config.kl.estimator.value,
            count=count,
            weights=of_samples,
        )
        parts["policy/kl_loss"] = kl.detach()
        loss = loss + experience.kl_coef * kl
    if entropy is not None:
        loss = loss - config.entropy_coef * masked_mean(entropy, everything, count, in_mean)
    return loss, parts, float((now - old_logprobs).max().exp())


def _value_loss(
    value_model: Trained, experience: Experience, micro: MicroBatch, config: PPOConfig, count: int
) -> tuple[Tensor, dict[str, Tensor]]:
    """A micro-batch's loss, and its share of the minibatch's metrics."""
    assert experience.values is not None, "a value model is trained on values of its own"
    assert experience.returns is not None, "a value model is trained on values of its own"
    values = response_values(value_model.model, micro)
    loss, clipfrac = value_loss(
        values,
        micro.select(experience.values),
        micro.select(experience.returns),
        torch.ones_like(values, dtype=torch.bool),
        clip_range=config.value_clip_range,
        count=count,
    )
    return config.value_coef * loss, {"value/loss": loss.detach(), "value/clipfrac": clipfrac}


def accumulate_ptx(policy: Trained, text: Tensor, *, coef: float, token_budget: int) -> float:
    """Add coef * gradient of the mean loss a token of pretraining text (arXiv:2203.02155, eq. 2); returns that mean.

    text: (sequences, length) int64, without padding.
    """
    rows_at_once = max(1, token_budget // text.shape[1])
    total = 0.0
    own = text[distributed.rank() :: distributed.world_size()]
    parts: Sequence[Tensor | None] = own.split(rows_at_once) if len(own) else ()
    for part in distributed.even(parts) if policy.even_passes else parts:
        share = 0.0 if part is None else len(part) / len(text)
        ids = text[:1] if part is None else part
        logits: Any = policy.model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        loss = F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten()) * share
        policy.backward(coef * loss)
        total += float(loss.detach())
    return sum(distributed.from_every_rank(total))


def _refuse_non_finite(metrics: dict[str, float]) -> None:
    for name in ("policy/loss", "policy/kl_loss", "value/loss", "policy/ptx_loss"):
        value = metrics.get(name, 0.0)
        if not math.isfinite(value):
            raise NonFiniteLossError(
                f"{name} is {value}; the weights are those of before this step. Lower ppo.optim.lr or "
                "ppo.value_optim.lr, or go back to an earlier checkpoint."
            )

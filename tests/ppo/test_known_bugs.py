"""Mistakes that other implementations of PPO for language models have made, each as a claim about our own numbers.

What one function does is tested beside that function: whitening with its mean shift inverted or per rank
(tests/rl/test_whitening.py), padding in any mean (tests/rl/test_padding.py), a clamped KL (tests/rl/test_kl.py),
sampling settings that a model brings along (tests/ppo/test_rollout.py), a score read at padding
(tests/models/test_models.py), a reference dropped at coefficient 0 and a coefficient lost on resume
(tests/stages/test_ppo.py). Here the parts are together, from token ids to metrics, as the stage puts them.
"""

from __future__ import annotations

import dataclasses
import types
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoModelForSequenceClassification

from rlhf.config import OptimConfig, PPOConfig
from rlhf.ppo.batching import sequences
from rlhf.ppo.experience import Experience, Responses, kl_to_reference, make_experience
from rlhf.ppo.roles import Reference, Roles
from rlhf.ppo.update import update
from rlhf.training.engine import Engine
from tests.support.tiny_ppo import EOS, tiny_config, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10], [4], [12, 13], [9, 9, 9]]
RESPONSES = [[3, EOS], [5, 6, 7, 8, 9], [11, 3, 4, EOS], [EOS]]
SCORES = [1.0, -2.0, 0.5, 3.0]
COEF = 0.3


def roles() -> Roles:
    """A policy and a reference that differ everywhere, prompt tokens included."""
    torch.manual_seed(1)
    shape = tiny_config("llama")
    shape.num_labels = 1
    value_model = AutoModelForSequenceClassification.from_config(shape).eval()
    policy = tiny_model("llama", seed=0)
    nothing: Any = types.SimpleNamespace()
    return Roles(policy, Reference(tiny_model("llama", seed=7)), nothing, value_model, nothing, nothing)


def experience(given: Roles, *, rows: list[int] | None = None, temperature: float = 1.0, **ppo: Any) -> Experience:
    rows = rows if rows is not None else list(range(len(PROMPTS)))
    config = PPOConfig(**({"batch_size": len(rows), "num_minibatches": 1, "missing_eos_penalty": 0.0} | ppo))
    return make_experience(
        given,
        Responses(
            sequences([PROMPTS[i] for i in rows], [RESPONSES[i] for i in rows], device="cpu", context=64),
            torch.tensor([SCORES[i] for i in rows]),
            [True] * len(rows),
        ),
        [list(range(len(rows)))],
        config=config,
        kl_coef=COEF,
        temperature=temperature,
    )


@torch.no_grad()
def plain_logprobs(model: Any, row: int, temperature: float = 1.0) -> Tensor:
    """Log-probs of a response's tokens, one plain forward a prefix: no padding, no batch."""
    found = []
    for t, token in enumerate(RESPONSES[row]):
        logits = model(torch.tensor([PROMPTS[row] + RESPONSES[row][:t]])).logits[0, -1].double() / temperature
        found.append(logits.log_softmax(-1)[token])
    return torch.stack(found)


def plain_kl(given: Roles, row: int, temperature: float = 1.0) -> float:
    with given.reference.model() as reference:
        difference = plain_logprobs(given.policy, row, temperature) - plain_logprobs(reference, row, temperature)
    return float(difference.sum())


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_kl_is_summed_over_response_tokens_alone_with_the_end_token_and_the_temperature(temperature: float) -> None:
    given = roles()
    expected = [plain_kl(given, row, temperature) for row in range(4)]
    metrics = experience(given, temperature=temperature).metrics()
    assert metrics["objective/kl"] == pytest.approx(sum(expected) / 4, rel=1e-4)
    assert metrics["objective/kl_per_token"] == pytest.approx(sum(expected) / sum(map(len, RESPONSES)), rel=1e-4)
    batch = sequences(PROMPTS, RESPONSES, device="cpu", context=64)
    measured = kl_to_reference(given, batch, temperature=temperature, token_budget=64)
    assert measured.tolist() == pytest.approx(expected, rel=1e-4, abs=1e-5)


def test_a_sampled_kl_below_zero_is_reported_and_rewarded_as_it_is() -> None:
    given = roles()
    row = min(range(4), key=lambda i: plain_kl(given, i))
    expected = plain_kl(given, row)
    assert expected < -0.1
    metrics = experience(given, rows=[row]).metrics()
    assert metrics["objective/kl"] == pytest.approx(expected, rel=1e-4)
    assert metrics["objective/reward"] == pytest.approx(SCORES[row] - COEF * expected, rel=1e-4)


def test_the_end_token_is_a_response_token_like_any_other() -> None:
    """A mask made by comparing ids with a pad id that is the end token would drop it, and the score with it."""
    given = roles()
    made_of = experience(given)
    lengths = [len(response) for response in RESPONSES]
    assert made_of.batch.response_mask.sum(-1).tolist() == lengths
    assert made_of.metrics()["rollout/response_tokens"] == sum(lengths) / 4
    last = torch.tensor(lengths) - 1
    for row in range(4):
        logprobs = plain_logprobs(given.policy, row)
        assert made_of.old_logprobs[row, : lengths[row]].tolist() == pytest.approx(logprobs.tolist(), abs=1e-4)
    with given.reference.model() as reference:
        ends = [plain_logprobs(given.policy, row)[-1] - plain_logprobs(reference, row)[-1] for row in range(4)]
    expected = [score - COEF * float(end) for score, end in zip(SCORES, ends, strict=True)]
    assert made_of.rewards[torch.arange(4), last].tolist() == pytest.approx(expected, abs=1e-4)


def test_metrics_are_means_over_response_tokens_whatever_the_padding() -> None:
    """A longer neighbour only adds padding to the others; the parts weigh in by their tokens."""
    given = roles()
    whole = experience(given)
    parts = [experience(given, rows=[row]) for row in range(4)]
    tokens = torch.tensor([float(len(response)) for response in RESPONSES])

    def weighed(name: str, weights: Tensor) -> float:
        values = torch.tensor([part.metrics()[name] for part in parts])
        return float((values * weights).sum() / weights.sum())

    metrics = whole.metrics()
    for name in ("objective/kl", "objective/kl_k3", "objective/reward", "rollout/response_tokens"):
        assert metrics[name] == pytest.approx(weighed(name, torch.ones(4)), rel=1e-4), name
    for name in ("policy/entropy", "objective/kl_per_token"):
        assert metrics[name] == pytest.approx(weighed(name, tokens), rel=1e-4), name
    mask = whole.batch.response_mask
    assert float(whole.advantages[mask].mean()) == pytest.approx(0, abs=1e-5)
    assert float(whole.advantages[mask].std(correction=0)) == pytest.approx(1, abs=1e-4)


@pytest.mark.parametrize("temperature", [1.0, 0.6])
def test_first_minibatch_has_ratio_one_to_the_last_bit_and_nothing_clipped(temperature: float) -> None:
    given = roles()
    made_of = experience(given, temperature=temperature, epochs=1)
    engines = [Engine(model, OptimConfig(lr=1e-3)) for model in (given.policy, given.value_model)]
    config = PPOConfig(batch_size=4, num_minibatches=1, epochs=1)
    metrics = update(*engines, made_of, config, temperature=temperature, seed=0)
    assert metrics["policy/ratio_max"] == 1
    assert metrics["policy/clipfrac"] == 0
    assert metrics["policy/approx_kl"] == 0


def test_kl_is_zero_to_the_last_bit_before_the_policy_has_moved() -> None:
    given = roles()
    untrained = dataclasses.replace(given, reference=Reference(given.policy))
    metrics = experience(untrained).metrics()
    assert metrics["objective/kl"] == 0
    assert metrics["objective/kl_k3"] == 0


def test_whitened_rewards_keep_their_mean() -> None:
    """Shifting it would pay every token of a response, and long ones the most or the least."""
    given = roles()
    plain = experience(given, whiten_advantages=False, gae_lambda=0.0, gamma=0.0)
    whitened = experience(given, whiten_advantages=False, gae_lambda=0.0, gamma=0.0, whiten_rewards=True)
    mask = plain.batch.response_mask
    # With gamma 0 an advantage is its own token's reward less its value.
    rewards, scaled = ((x.advantages + x.values)[mask] for x in (plain, whitened))
    assert float(scaled.std(correction=0)) == pytest.approx(1, rel=1e-4)
    assert float(scaled.mean()) == pytest.approx(float(rewards.mean()), rel=1e-4)
    assert abs(float(rewards.mean())) > 0.01

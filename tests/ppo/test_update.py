"""The update's gradients are those of the minibatch, however it is cut; nothing moves on a loss that is not finite."""

from __future__ import annotations

import dataclasses
import math
import types
from typing import Any

import pytest
import torch
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification

from rlhf.config import (
    KLConfig,
    KLPlacement,
    LossMean,
    OptimConfig,
    PPOConfig,
    PtxConfig,
)
from rlhf.ppo import update as update_module
from rlhf.ppo.batching import sequences
from rlhf.ppo.ema import EMA
from rlhf.ppo.experience import Experience, Responses, make_experience
from rlhf.ppo.roles import Reference, Roles
from rlhf.ppo.update import accumulate_ptx, split_minibatches, update
from rlhf.training.engine import Engine, NonFiniteLossError
from tests.support.tiny_ppo import tiny_config, tiny_model

N = 24
# One micro-batch of everything, against many: plain attention keeps float32 rounding alike.
BUDGETS = [100_000, 1]


def build(**config: Any) -> tuple[Roles, Experience, PPOConfig]:
    settings = PPOConfig(batch_size=N, **({"num_minibatches": 1, "epochs": 1} | config))
    torch.manual_seed(1)
    classifier = tiny_config("llama")
    classifier.num_labels = 1
    value_model = AutoModelForSequenceClassification.from_config(classifier).eval()
    policy = tiny_model("llama")
    roles = Roles(policy, Reference(policy), None, value_model, types.SimpleNamespace(), types.SimpleNamespace())
    generator = torch.Generator().manual_seed(0)

    def tokens(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(3, 32, (count,), generator=generator).tolist()

    batch = sequences([tokens(1, 30) for _ in range(N)], [tokens(1, 10) for _ in range(N)], device="cpu", context=64)
    scores = torch.randn(N, generator=generator)
    experience = make_experience(
        roles,
        Responses(batch, scores, [True] * N),
        split_minibatches(N, settings.num_minibatches, 0),
        config=settings,
        kl_coef=0.1,
        temperature=1.0,
    )
    return roles, experience, settings


def engines(roles: Roles, lr: float = 1e-3) -> tuple[Engine, Engine]:
    optim = OptimConfig(lr=lr)
    return Engine(roles.policy, optim), Engine(roles.value_model, optim)


def gradients(engine: Engine) -> torch.Tensor:
    return torch.cat([p.grad.flatten() for p in engine.parameters if p.grad is not None])


def test_micro_batching_changes_no_gradient() -> None:
    roles, experience, _ = build()
    found = []
    for budget in BUDGETS:
        policy, value_model = engines(roles)
        config = PPOConfig(batch_size=N, num_minibatches=1, micro_batch_tokens=budget)
        metrics = update_module._accumulate(policy, value_model, experience, list(range(N)), config, 1.0)
        found.append((gradients(policy), gradients(value_model), metrics))
        policy.clear()
        value_model.clear()
    (whole, whole_value, whole_metrics), (parts, parts_value, parts_metrics) = found
    assert torch.allclose(whole, parts, atol=1e-6, rtol=1e-4)
    assert torch.allclose(whole_value, parts_value, atol=1e-6, rtol=1e-4)
    assert whole_metrics == pytest.approx(parts_metrics, abs=1e-5)


def test_losses_are_means_over_the_minibatch_s_response_tokens() -> None:
    """At ratio 1 the policy's loss is minus the mean advantage, and the value loss half the mean squared advantage."""
    roles, experience, config = build(whiten_advantages=False)
    metrics = update_module._accumulate(*engines(roles), experience, list(range(N)), config, 1.0)
    advantages = experience.advantages[experience.batch.response_mask]
    assert metrics["policy/loss"] == pytest.approx(-float(advantages.mean()), rel=1e-4)
    assert metrics["value/loss"] == pytest.approx(0.5 * float(advantages.square().mean()), rel=1e-4)


def test_micro_batching_of_pretraining_text_changes_no_gradient() -> None:
    roles, _, _ = build()
    text = torch.randint(3, 32, (5, 8), generator=torch.Generator().manual_seed(0))
    found = []
    for budget in (1000, 16):
        policy, _ = engines(roles)
        loss = accumulate_ptx(policy, text, coef=0.5, token_budget=budget)
        found.append((gradients(policy), loss))
        policy.clear()
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6, rtol=1e-4)
    logits = roles.policy(text).logits[:, :-1]
    assert found[0][1] == pytest.approx(F.cross_entropy(logits.flatten(0, 1), text[:, 1:].flatten()).item(), rel=1e-5)
    assert found[1][1] == pytest.approx(found[0][1], rel=1e-5)


def test_both_gradients_of_ptx_are_in_one_step() -> None:
    """The step's gradient norm is that of the sum, so it differs from either alone."""
    text = torch.randint(3, 32, (2, 8), generator=torch.Generator().manual_seed(0))
    norms = []
    for pretraining in (None, text):
        roles, experience, config = build(ptx=PtxConfig(coef=2.0))
        policy, value_model = engines(roles)
        metrics = update(policy, value_model, experience, config, temperature=1.0, seed=0, pretraining=pretraining)
        norms.append(metrics["optim/grad_norm"])
    roles, _, _ = build()
    policy, _ = engines(roles)
    accumulate_ptx(policy, text, coef=2.0, token_budget=1000)
    alone = float(gradients(policy).norm())
    assert abs(norms[1] - norms[0]) > 1e-3
    assert abs(norms[1] - alone) > 1e-3


def test_micro_batching_changes_no_gradient_with_every_option_on() -> None:
    options: dict[str, Any] = {
        "loss_mean": LossMean.sequence,
        "dual_clip": 2.0,
        "entropy_coef": 0.1,
        "kl": KLConfig(placement=KLPlacement.loss),
    }
    roles, experience, _ = build(**options)
    lengths = experience.batch.response_mask.sum(-1, keepdim=True).float()
    experience = dataclasses.replace(experience, correction=(1 / lengths).expand_as(experience.old_logprobs))
    found = []
    for budget in BUDGETS:
        policy, value_model = engines(roles)
        config = PPOConfig(batch_size=N, num_minibatches=1, micro_batch_tokens=budget, **options)
        metrics = update_module._accumulate(policy, value_model, experience, list(range(N)), config, 1.0)
        found.append((gradients(policy), metrics))
        policy.clear()
    assert torch.allclose(found[0][0], found[1][0], atol=1e-6, rtol=1e-4)
    assert found[0][1] == pytest.approx(found[1][1], abs=1e-5)


def test_target_kl_leaves_the_rest_of_the_iteration_out() -> None:
    roles, experience, config = build(epochs=8, num_minibatches=2, target_kl=1e-3)
    before = [p.clone() for p in roles.policy.parameters()]
    policy, value_model = engines(roles, lr=1e-2)
    metrics = update(policy, value_model, experience, config, temperature=1.0, seed=0)
    steps = int(policy.optimizer.state[policy.masters[0]]["step"])
    assert 0 < steps < 16
    assert int(value_model.optimizer.state[value_model.masters[0]]["step"]) == steps
    assert metrics["policy/early_stop"] == 1
    assert metrics["policy/approx_kl"] <= 1e-3
    assert not all(torch.equal(one, other) for one, other in zip(before, roles.policy.parameters(), strict=True))
    assert all(p.grad is None for p in (*policy.parameters, *value_model.parameters))

    roles, experience, config = build(epochs=2, target_kl=1e6)
    assert update(*engines(roles), experience, config, temperature=1.0, seed=0)["policy/early_stop"] == 0


def test_entropy_bonus_raises_the_entropy() -> None:
    after = []
    for coef in (0.0, 10.0):
        roles, experience, config = build(epochs=8, entropy_coef=coef)
        update(*engines(roles, lr=1e-2), experience, config, temperature=1.0, seed=0)
        again = make_experience(
            roles,
            Responses(experience.batch, experience.scores, [True] * N),
            experience.minibatches,
            config=config,
            kl_coef=0.1,
            temperature=1.0,
        )
        after.append(again.metrics()["policy/entropy"])
    assert after[1] > after[0] + 0.1


def test_correction_weighs_each_token_s_loss_by_policy_over_sampler_up_to_the_cap() -> None:
    roles, plain, _ = build(whiten_advantages=False)
    config = PPOConfig(batch_size=N, num_minibatches=1, epochs=1, whiten_advantages=False, rollout_correction_cap=2.0)
    lengths = plain.batch.response_mask.sum(-1).tolist()
    # The first half was drawn at a third of the trainer's probability, the rest at twice it.
    shifts = [-math.log(3.0) if row < N // 2 else math.log(2.0) for row in range(N)]
    sampled = [
        [x + shift for x in row[:length].tolist()]
        for row, length, shift in zip(plain.old_logprobs, lengths, shifts, strict=True)
    ]
    corrected = make_experience(
        roles,
        Responses(plain.batch, plain.scores, [True] * N, rollout_logprobs=sampled),
        plain.minibatches,
        config=config,
        kl_coef=0.1,
        temperature=1.0,
    )
    mask = plain.batch.response_mask
    weights = torch.tensor([[2.0 if row < N // 2 else 0.5] for row in range(N)]).expand_as(mask).where(mask, 0.0)
    assert corrected.correction is not None
    assert torch.allclose(corrected.correction, weights, rtol=1e-4)
    loss = update_module._accumulate(*engines(roles), corrected, list(range(N)), config, 1.0)["policy/loss"]
    assert loss == pytest.approx(-float((plain.advantages * weights).sum() / mask.sum()), rel=1e-3, abs=1e-5)
    assert corrected.metrics()["rollout/correction"] == pytest.approx(float(weights.sum() / mask.sum()), rel=1e-4)

    offsets = torch.linspace(0, 1, N)[:, None]
    far = dataclasses.replace(corrected, ref_logprobs=corrected.old_logprobs - offsets)
    in_loss = dataclasses.replace(config, kl=KLConfig(placement=KLPlacement.loss), loss_mean=LossMean.sequence)
    metrics = update_module._accumulate(*engines(roles), far, list(range(N)), in_loss, 1.0)
    assert metrics["policy/kl_loss"] == pytest.approx(float((weights[:, :1] * offsets).mean()), rel=1e-3)


@pytest.mark.parametrize("broken", ["advantages", "returns"])
def test_a_loss_that_is_not_finite_stops_before_anything_moves(broken: str) -> None:
    roles, experience, config = build()
    getattr(experience, broken)[0, 0] = torch.inf
    before = [p.clone() for m in (roles.policy, roles.value_model) for p in m.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"ppo\.optim\.lr"):
        update(*engines(roles), experience, config, temperature=1.0, seed=0)
    after = [p for m in (roles.policy, roles.value_model) for p in m.parameters()]
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


def test_temperature_divides_the_logits_in_old_and_new_logprobs_alike() -> None:
    roles, _, config = build()
    batch = sequences([[5, 6]], [[7, 8]], device="cpu", context=64)
    one, half = (
        make_experience(
            roles, Responses(batch, torch.zeros(1), [True]), [[0]], config=config, kl_coef=0.0, temperature=temperature
        )
        for temperature in (1.0, 0.5)
    )
    logits = roles.policy(torch.tensor([[5, 6, 7]])).logits[0, 1:]
    expected = (logits / 0.5).log_softmax(-1)[[0, 1], [7, 8]]
    assert torch.allclose(half.old_logprobs[0], expected, atol=1e-5)
    assert not torch.allclose(half.old_logprobs, one.old_logprobs, atol=1e-2)
    metrics = update(*engines(roles), half, config, temperature=0.5, seed=0)
    assert metrics["policy/ratio_max"] == 1


def test_later_epochs_shuffle_rows_into_other_minibatches(monkeypatch: pytest.MonkeyPatch) -> None:
    roles, experience, config = build(num_minibatches=2, epochs=3)
    seen: list[list[int]] = []
    real = update_module._accumulate

    def record(*args: Any) -> dict[str, float]:
        seen.append(list(args[3]))
        return real(*args)

    monkeypatch.setattr(update_module, "_accumulate", record)
    update(*engines(roles), experience, config, temperature=1.0, seed=0)
    assert seen[:2] == experience.minibatches
    assert all(sorted(seen[i] + seen[i + 1]) == list(range(N)) for i in (0, 2, 4))
    assert sorted(seen[0]) != sorted(seen[2]) != sorted(seen[4])


def test_each_option_of_the_losses_changes_the_update() -> None:
    def moved(**config: Any) -> torch.Tensor:
        roles, experience, settings = build(epochs=4, **config)
        update(*engines(roles, lr=1e-2), experience, settings, temperature=1.0, seed=0)
        return torch.cat([p.detach().flatten() for m in (roles.policy, roles.value_model) for p in m.parameters()])

    plain = moved()
    for change in (
        {"value_clip_range": 0.0},
        {"whiten_advantages": False},
        {"whiten_rewards": True},
        {"dual_clip": 1.01},
        {"entropy_coef": 0.1},
        {"loss_mean": LossMean.sequence},
        {"target_kl": 1e-4},
        {"kl": KLConfig(placement=KLPlacement.loss)},
    ):
        assert not torch.equal(plain, moved(**change)), change


def test_average_follows_its_formula_and_leaves_the_weights_alone() -> None:
    model = torch.nn.Linear(2, 1)
    start = model.weight.detach().clone()
    average = EMA(model, decay=0.75)
    with torch.no_grad():
        model.weight.add_(1.0)
    average.update()
    with average.applied():
        assert torch.allclose(model.weight, start + 0.25)
    assert torch.equal(model.weight.detach(), start + 1.0)

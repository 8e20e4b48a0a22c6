"""Several roles on one copy of the weights are the roles they would be apart, and none moves what another stands on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import peft
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoModelForSequenceClassification

from rlhf.config import LoraConfig, ModelConfig, OptimConfig, PPOConfig
from rlhf.errors import UserError
from rlhf.models.adapters import adapter_of, is_adapter_of, reward_model_on, value_model_on
from rlhf.models.flat import can_run_flat
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.lora import add_lora
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores, token_scores
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.batching import micro_batches, response_logits, response_values, sequences
from rlhf.ppo.experience import Experience, Responses, make_experience
from rlhf.ppo.roles import Reference, Roles
from rlhf.ppo.scoring import Scorer
from rlhf.ppo.update import split_minibatches, update
from rlhf.training.engine import Engine
from tests.support.tiny import ARCHITECTURES, LORA, save_adapted_reward_model, save_tiny_model, shake

SEQUENCES = [[5, 6, 7, 8, 9, 10, 11], [12, 13, 14], [15, 16, 17, 18, 19]]
CONFIG = ModelConfig(lora=LORA, attn_implementation="eager")
N = 16


@pytest.fixture(params=["llama", "gpt2"])  # a bias folded into the head, and into the last norm
def folders(request: pytest.FixtureRequest, tmp_path: Path) -> tuple[Path, Path]:
    return make_folders(tmp_path, request.param)


def make_folders(root: Path, architecture: str = "llama") -> tuple[Path, Path]:
    base, reward = root / "base", root / "reward"
    save_tiny_model(base, architecture)
    save_adapted_reward_model(base, reward)
    return base, reward


def on_one_base(base: Path, start: Path, reward: Path) -> tuple[Any, Any, Any]:
    """Policy with new adapters, value model, reward model."""
    plain = load_causal_lm(str(base), CONFIG)
    tokenizer = load_tokenizer(str(base))
    value_model = value_model_on(plain, tokenizer, base, start, CONFIG)
    reward_model = reward_model_on(plain, tokenizer, base, reward, CONFIG)
    return add_lora(plain, LORA).eval(), value_model.eval(), reward_model


def scores(model: Any) -> Tensor:
    return sequence_scores(model, SEQUENCES)


def base_weights(model: Any) -> dict[str, Tensor]:
    """Weights that no adapter owns, by their storage; those of the head and other modules kept whole left out."""
    return {
        name: parameter
        for name, parameter in model.named_parameters()
        if "lora_" not in name and "modules_to_save" not in name and "score" not in name
    }


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_an_adapter_scores_as_the_merged_model_and_in_plain_peft(tmp_path: Path, architecture: str) -> None:
    base, reward = make_folders(tmp_path, architecture)
    merged = scores(load_reward_model(str(reward), ModelConfig()).eval())
    _, value_model, reward_model = on_one_base(base, reward, reward)
    assert float(merged.std()) > 1e-3
    torch.testing.assert_close(scores(reward_model), merged, atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(scores(value_model), merged, atol=1e-5, rtol=1e-5)
    plain = AutoModelForSequenceClassification.from_pretrained(base, num_labels=1)
    theirs = peft.PeftModel.from_pretrained(plain, reward / "adapter").eval()
    with torch.no_grad():
        alone = torch.stack([theirs(input_ids=torch.tensor([row])).logits[0, 0] for row in SEQUENCES])
    torch.testing.assert_close(alone, merged, atol=1e-5, rtol=1e-5)


def test_no_weight_of_the_base_is_in_memory_twice(folders: tuple[Path, Path]) -> None:
    roles = on_one_base(*folders, folders[1])
    owned = [{p.data_ptr() for p in base_weights(role).values()} for role in roles]
    policy, value_model, reward_model = owned
    # The policy alone has a language-model head; a last norm with a folded bias is kept whole by the scorers.
    assert value_model < policy
    assert reward_model < policy
    assert len(policy) - len(value_model) <= 3


def test_no_adapter_is_shared(folders: tuple[Path, Path]) -> None:
    roles = on_one_base(*folders, folders[1])
    owned = [{p.data_ptr() for n, p in role.named_parameters() if "lora_" in n} for role in roles]
    assert all(owned)
    assert len(owned[0] | owned[1] | owned[2]) == sum(map(len, owned))


def test_roles_on_one_base_run_flat_as_they_run_padded(tmp_path: Path) -> None:
    base, reward = make_folders(tmp_path, "llama")
    policy, value_model, _ = on_one_base(base, reward, reward)
    prompts, responses = [[5, 6, 7], [8, 9, 10, 11, 12], [13]], [[3, 4], [5, 6, 7], [8, 9, 10, 11]]
    for model, run in ((policy, response_logits), (value_model, response_values)):
        assert can_run_flat(model)
        found = []
        for flat in (False, True):
            batch = sequences(prompts, responses, device="cpu", context=64, flat=flat)
            (micro,) = micro_batches(batch, range(3), 4096)
            with torch.no_grad():
                rows = run(model, micro).split(micro.response_mask.sum(1).tolist())
            found.append(dict(zip(micro.rows.tolist(), rows, strict=True)))
        for row in range(3):
            torch.testing.assert_close(found[0][row], found[1][row], atol=1e-5, rtol=1e-5)


def roles_of(policy: Any, value_model: Any, reward_model: Any) -> Roles:
    scorer = Scorer({"reward_model": reward_model})
    return Roles(policy, Reference(policy), scorer, value_model, None, None)  # type: ignore[arg-type]


def experience_of(roles: Roles, config: PPOConfig) -> Experience:
    generator = torch.Generator().manual_seed(0)

    def tokens(low: int, high: int) -> list[int]:
        count = int(torch.randint(low, high, (), generator=generator))
        return torch.randint(3, 60, (count,), generator=generator).tolist()

    prompts, responses = [tokens(1, 20) for _ in range(N)], [tokens(1, 8) for _ in range(N)]
    whole = [p + r for p, r in zip(prompts, responses, strict=True)]
    given = sequence_scores(roles.scorer.reward_models["reward_model"], whole)
    batch = sequences(prompts, responses, device="cpu", context=64)
    parts = split_minibatches(N, config.num_minibatches, 0)
    return make_experience(
        roles, Responses(batch, given, [True] * N), parts, config=config, kl_coef=0.1, temperature=1.0
    )


def engines(roles: Roles, policy_lr: float = 1e-2, value_lr: float = 1e-2) -> tuple[Engine, Engine]:
    return (
        Engine(roles.policy, OptimConfig(lr=policy_lr)),
        Engine(roles.value_model, OptimConfig(lr=value_lr)),
    )


PPO = PPOConfig(batch_size=N, num_minibatches=2, epochs=2)


def test_training_on_one_base_is_training_apart_bit_for_bit(folders: tuple[Path, Path]) -> None:
    """A value model that starts from the base has the same adapters either way, so every number must agree."""
    base, reward = folders
    policy, value_model, reward_model = on_one_base(base, base, reward)
    shared = roles_of(policy, value_model, reward_model)
    apart = roles_of(
        add_lora(load_causal_lm(str(base), CONFIG), LORA).eval(),
        add_lora(load_reward_model(str(base), CONFIG, fresh_head=True), LORA).eval(),
        reward_model,
    )
    for seed, role in enumerate(("policy", "value_model")):
        shake(getattr(shared, role), seed)
        shake(getattr(apart, role), seed)
    found = []
    for roles in (shared, apart):
        experience = experience_of(roles, PPO)
        metrics = update(*engines(roles), experience, PPO, temperature=1.0, seed=0)
        trained = [p for m in (roles.policy, roles.value_model) for p in m.parameters() if p.requires_grad]
        found.append((experience, metrics, trained))
    (one, one_metrics, one_trained), (other, other_metrics, other_trained) = found
    for name in ("old_logprobs", "ref_logprobs", "values", "advantages"):
        assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert not torch.equal(one.old_logprobs, one.ref_logprobs)
    assert one_metrics == other_metrics
    assert len(one_trained) > 4
    assert all(torch.equal(a, b) for a, b in zip(one_trained, other_trained, strict=True))


def snapshot(model: nn.Module) -> dict[str, Tensor]:
    return {name: tensor.detach().clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("trains", ["policy", "value_model"])
def test_training_one_role_moves_no_weight_of_another_nor_of_the_base(trains: str, folders: tuple[Path, Path]) -> None:
    base, reward = folders
    roles = roles_of(*on_one_base(base, reward, reward))
    named = {"policy": roles.policy, "value_model": roles.value_model, **roles.scorer.reward_models}
    before = {name: snapshot(model) for name, model in named.items()}
    experience = experience_of(roles, PPO)
    policy, value_model = engines(roles)
    idle = value_model if trains == "policy" else policy
    idle.step = lambda: (idle.clear(), 0.0)[1]  # type: ignore[method-assign]
    update(policy, value_model, experience, PPO, temperature=1.0, seed=0)
    trained = {name for name, parameter in named[trains].named_parameters() if parameter.requires_grad}
    for name, model in named.items():
        moved = {key for key, tensor in model.state_dict().items() if not torch.equal(tensor, before[name][key])}
        assert moved == (trained if name == trains else set())


def test_value_model_trains_adapters_and_head_but_no_folded_bias(folders: tuple[Path, Path]) -> None:
    _, value_model, reward_model = on_one_base(*folders, folders[1])
    trained = [name for name, parameter in value_model.named_parameters() if parameter.requires_grad]
    assert all("lora_" in name or "score.modules_to_save" in name for name in trained)
    assert sum("lora_" not in name for name in trained) == 1
    assert not any(parameter.requires_grad for parameter in reward_model.parameters())


def test_a_saved_value_model_loads_plainly_and_goes_on_as_an_adapter(
    folders: tuple[Path, Path], tmp_path: Path
) -> None:
    base, reward = folders
    _, value_model, _ = on_one_base(base, reward, reward)
    shake(value_model, 3)
    saved = tmp_path / "value_model"
    save_model(value_model, load_tokenizer(str(base)), saved, adapter=adapter_of(value_model, base))
    expected = scores(value_model)
    torch.testing.assert_close(scores(load_reward_model(str(saved), ModelConfig()).eval()), expected)
    _, again, _ = on_one_base(base, saved, reward)
    torch.testing.assert_close(scores(again), expected)


def test_gradient_checkpointing_recomputes_with_its_own_adapter(tmp_path: Path) -> None:
    """Both graphs are alive when the first backward pass recomputes: one shared module with a switch would mix them."""
    base, reward = make_folders(tmp_path)
    gradients = []
    for checkpointing in (False, True):
        policy, value_model, _ = on_one_base(base, reward, reward)
        shake(policy, 0)
        for model in (policy, value_model):
            model.train()
            if checkpointing:
                model.gradient_checkpointing_enable(gradient_checkpointing_kwargs={"use_reentrant": False})
        ids = torch.tensor([SEQUENCES[0]])
        losses = (policy(ids).logits.square().mean(), token_scores(value_model, ids).square().mean())
        for loss in losses:
            loss.backward()
        gradients.append([p.grad for m in (policy, value_model) for p in m.parameters() if p.requires_grad])
    assert all(torch.equal(one, other) for one, other in zip(*gradients, strict=True))


def test_the_base_is_known_by_its_weights_and_not_by_its_name(tmp_path: Path) -> None:
    base, reward = make_folders(tmp_path)
    note = json.loads((reward / "adapter" / "base.json").read_text())
    assert note["path"] == str(base)
    moved = base.rename(tmp_path / "elsewhere")
    assert is_adapter_of(reward, moved)
    other = tmp_path / "other"
    save_tiny_model(other, seed=1)
    assert not is_adapter_of(reward, other)


def test_a_reward_model_of_another_base_is_none_and_a_value_model_of_one_is_refused(tmp_path: Path) -> None:
    _, reward = make_folders(tmp_path)
    other = tmp_path / "other"
    save_tiny_model(other, seed=1)
    plain, tokenizer = load_causal_lm(str(other), ModelConfig()), load_tokenizer(str(other))
    assert reward_model_on(plain, tokenizer, other, reward, CONFIG) is None
    with pytest.raises(UserError, match=r"ppo\.share_base=true needs .* an adapter of the policy"):
        value_model_on(plain, tokenizer, other, reward, CONFIG)


@pytest.mark.parametrize(
    ("wanted", "key"),
    [
        (LoraConfig(r=8), r"model\.lora\.r is 8"),
        (LoraConfig(r=4, alpha=1.0), r"model\.lora\.alpha is 1\.0"),
        (LoraConfig(r=4, target_modules=["q_proj"]), r"model\.lora\.target_modules is \['q_proj'\]"),
    ],
)
def test_adapters_of_another_shape_than_asked_are_refused(wanted: LoraConfig, key: str, tmp_path: Path) -> None:
    base, reward = make_folders(tmp_path)
    plain, tokenizer = load_causal_lm(str(base), ModelConfig()), load_tokenizer(str(base))
    with pytest.raises(UserError, match=key):
        value_model_on(plain, tokenizer, base, reward, ModelConfig(lora=wanted))


@pytest.mark.parametrize("target", ["lm_head", "embed_tokens"])
def test_an_adapter_on_weights_that_two_layers_share_is_refused(tmp_path: Path, target: str) -> None:
    lora = LoraConfig(r=4, target_modules=[target])
    tied = load_causal_lm(save_tiny_model(tmp_path / "tied", "llama", tied=True), ModelConfig())
    with pytest.raises(UserError, match=rf"target_modules holds {target}, .*leave it out"):
        add_lora(tied, lora)
    add_lora(load_causal_lm(save_tiny_model(tmp_path / "apart", "llama"), ModelConfig()), lora)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("targets", [[], ["lm_head"], ["embed_tokens", "wte"], ["q_proj", "c_attn"]])
def test_what_is_saved_gives_the_logits_of_what_was_trained(
    tmp_path: Path, architecture: str, tied: bool, targets: list[str]
) -> None:
    base = save_tiny_model(tmp_path / "base", architecture, tied=tied)
    known = {name.rpartition(".")[2] for name, _ in load_causal_lm(base, ModelConfig()).named_modules()}
    chosen = [name for name in targets if name in known]
    if tied and set(chosen) & {"lm_head", "embed_tokens", "wte"}:
        return  # refused, as above
    model = add_lora(load_causal_lm(base, ModelConfig()), LoraConfig(r=4, target_modules=chosen))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "lora_" in name:
                parameter.normal_(std=0.1, generator=torch.Generator().manual_seed(len(name)))
    ids = torch.randint(1, 300, (2, 12), generator=torch.Generator().manual_seed(0))
    trained = model.eval()(ids).logits
    save_model(model, load_tokenizer(base), tmp_path / "saved")
    saved = load_causal_lm(str(tmp_path / "saved"), ModelConfig()).eval()(ids).logits
    torch.testing.assert_close(saved, trained, atol=2e-5, rtol=1e-4)
    assert (trained - load_causal_lm(base, ModelConfig()).eval()(ids).logits).abs().max() > 1e-3

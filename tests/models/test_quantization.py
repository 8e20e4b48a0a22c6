"""Quantized bases under adapters, on the CPU; bitsandbytes is an extra, so without it most of this is skipped."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config import ModelConfig, Quantization
from rlhf.errors import UserError
from rlhf.models import adapters
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.lora import add_lora, merged_state_dict, unwrap_lora
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores, token_scores
from rlhf.models.tokenizers import load_tokenizer
from tests.support.tiny import (
    ARCHITECTURES,
    LORA,
    needs_bitsandbytes,
    save_adapted_reward_model,
    save_tiny_model,
    shake,
)

KINDS = [Quantization.int8, Quantization.nf4]
IDS = torch.tensor([[5, 6, 7, 8, 9, 10, 11], [12, 13, 14, 15, 16, 17, 18]])


def load(path: str | Path, kind: Quantization) -> Any:
    return load_causal_lm(str(path), ModelConfig(), quantization=kind).eval()


@needs_bitsandbytes
@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("kind", KINDS)
def test_a_quantized_model_is_saved_merged_and_whole(tmp_path: Path, architecture: str, kind: Quantization) -> None:
    path = save_tiny_model(tmp_path / "base", architecture, hidden=64)
    model = add_lora(load(path, kind), LORA).eval()
    shake(model, 0)
    save_model(model, load_tokenizer(path), tmp_path / "saved", dtype=torch.float32)
    assert "quantization_config" not in json.loads((tmp_path / "saved" / "config.json").read_text())
    plain = AutoModelForCausalLM.from_pretrained(tmp_path / "saved").eval()
    assert {p.dtype for p in plain.parameters()} == {torch.float32}
    with torch.no_grad():
        ours, theirs = model(IDS).logits, plain(IDS).logits
        untrained = AutoModelForCausalLM.from_pretrained(path).eval()(IDS).logits
    # int8 rounds what goes into each product too, which the merged weights cannot.
    tolerance = 1e-4 if kind == Quantization.nf4 else 0.02
    assert float((ours - theirs).norm() / ours.norm()) < tolerance
    assert float((ours - untrained).norm() / ours.norm()) > 0.1


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_quantized_weights_are_near_the_given_ones_in_a_fraction_of_the_bytes(
    tmp_path: Path, kind: Quantization
) -> None:
    path = save_tiny_model(tmp_path, "gpt2", hidden=64)
    model = add_lora(load(path, kind), LORA)
    given = load(path, Quantization.none).state_dict()
    found = merged_state_dict(model)
    name = "transformer.h.0.mlp.c_fc.weight"
    assert 0 < float((found[name] - given[name]).abs().max() / given[name].abs().max()) < 0.16
    packed = unwrap_lora(model).get_submodule(name.removesuffix(".weight")).base_layer.weight
    assert packed.nbytes * (4 if kind == Quantization.int8 else 8) == given[name].nbytes


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_log_probs_with_and_without_gradient_are_the_same_bits(tmp_path: Path, kind: Quantization) -> None:
    """Or the first minibatch's ratios would not be 1."""
    model = add_lora(load(save_tiny_model(tmp_path, "llama", hidden=64), kind), LORA).eval()
    shake(model, 0)
    with torch.no_grad():
        without = model(IDS).logits
    assert torch.equal(model(IDS).logits, without)


@needs_bitsandbytes
@pytest.mark.parametrize("kind", KINDS)
def test_roles_share_a_quantized_base(tmp_path: Path, kind: Quantization) -> None:
    base, reward = tmp_path / "base", tmp_path / "reward"
    save_tiny_model(base, "llama", hidden=64)
    save_adapted_reward_model(base, reward)
    policy, tokenizer = load(base, kind), load_tokenizer(str(base))
    value_model = adapters.value_model_on(policy, tokenizer, base, reward, ModelConfig(lora=LORA))
    policy = add_lora(policy, LORA)
    name = "model.layers.0.mlp.up_proj"
    one, other = (unwrap_lora(m).get_submodule(name).base_layer for m in (policy, value_model))
    assert one is other
    before = one.weight.clone()
    rows = IDS.tolist()
    dense = sequence_scores(load_reward_model(str(reward), ModelConfig()), rows)
    assert float((sequence_scores(value_model, rows) - dense).norm() / dense.norm()) < 0.25
    for loss in (policy(IDS).logits.square().mean(), token_scores(value_model, IDS).square().mean()):
        loss.backward()
    assert all(p.grad is not None for m in (policy, value_model) for p in m.parameters() if p.requires_grad)
    assert torch.equal(one.weight, before)


@needs_bitsandbytes
def test_four_bits_on_a_cpu_are_refused_where_the_kernel_is_wrong(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, "llama", hidden=32)
    with pytest.raises(UserError, match=r"multiple of 64, and model\.layers\.0.* has 32; use model\.quantization=int8"):
        load(path, Quantization.nf4)
    load(path, Quantization.int8)


def test_without_bitsandbytes_it_is_refused_with_the_way_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_tiny_model(tmp_path)
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    with pytest.raises(UserError, match=r"model\.quantization=nf4 needs bitsandbytes.*model\.quantization=none"):
        load(path, Quantization.nf4)

"""No weight of a model is random because its folder lacked it, and none of the folder's is thrown away."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from rlhf.config import ModelConfig
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm, load_reward_model
from tests.support.tiny import ARCHITECTURES, save_tiny_model

Weights = dict[str, Tensor]


def prefixed(prefix: str) -> Callable[[Weights], Weights]:
    return lambda weights: {f"{prefix}{name}": tensor for name, tensor in weights.items()}


def without(part: str) -> Callable[[Weights], Weights]:
    return lambda weights: {name: tensor for name, tensor in weights.items() if part not in name}


def harm(folder: str, change: Callable[[Weights], Weights]) -> None:
    path = Path(folder) / "model.safetensors"
    save_file(change(load_file(path)), path, metadata={"format": "pt"})


@pytest.mark.parametrize(
    "load", [load_causal_lm, lambda path, config: load_reward_model(path, config, fresh_head=True)]
)
@pytest.mark.parametrize(
    ("change", "said"),
    [
        (prefixed("_orig_mod."), r"begin with _orig_mod\..*torch\.compile"),
        (prefixed("module."), r"begin with module\..*save model\.module"),
        (prefixed("base_model.model."), r"begin with base_model\.model\..*merge_and_unload"),
        (without("layers.1.mlp"), r"lacks model\.layers\.1\.mlp\.down_proj\.weight, .*up_proj"),
        (lambda w: {**w, "model.layers.0.extra.weight": w["model.norm.weight"].clone()}, r"has .*extra\.weight, which"),
    ],
)
def test_weights_that_are_not_the_model_s_are_refused(
    tmp_path: Path, change: Callable[[Weights], Weights], said: str, load: Callable[..., object]
) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    harm(folder, change)
    with pytest.raises(UserError, match=said):
        load(folder, ModelConfig())


@pytest.mark.parametrize("layers", [1, 3])
def test_a_config_with_another_number_of_layers_is_refused(tmp_path: Path, layers: int) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    config = json.loads((tmp_path / "config.json").read_text())
    assert config["num_hidden_layers"] == 2
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": layers}))
    with pytest.raises(UserError, match=r"lacks model\.layers\.2" if layers == 3 else r"has model\.layers\.1"):
        load_causal_lm(folder, ModelConfig())


def test_a_head_that_is_missing_and_not_tied_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama", tied=False)
    harm(folder, without("lm_head"))
    with pytest.raises(UserError, match=r"lacks lm_head\.weight"):
        load_causal_lm(folder, ModelConfig())


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_whole_folders_load_and_a_score_needs_its_head(tmp_path: Path, architecture: str, tied: bool) -> None:
    folder = save_tiny_model(tmp_path, architecture, tied=tied)
    load_causal_lm(folder, ModelConfig())
    load_reward_model(folder, ModelConfig(), fresh_head=True)
    with pytest.raises(UserError, match=r"no head for a score.*stage=reward"):
        load_reward_model(folder, ModelConfig())


def test_a_weight_of_another_shape_is_refused(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    harm(folder, lambda w: {**w, "model.norm.weight": w["model.norm.weight"][:4].clone()})
    with pytest.raises(UserError, match=r"has model\.norm\.weight with the shape \(4,\), where its config\.json means"):
        load_causal_lm(folder, ModelConfig())


def test_constants_of_older_versions_are_no_weights(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path, "llama")
    harm(folder, lambda w: {**w, "model.layers.0.self_attn.rotary_emb.inv_freq": w["model.norm.weight"].clone()})
    load_causal_lm(folder, ModelConfig())


def test_a_reward_model_writes_no_text_and_two_labels_are_no_score(tmp_path: Path) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    base = save_tiny_model(tmp_path / "base", "llama")
    for labels, said in ((1, "head for a score"), (2, "2 labels.*one score")):
        folder = str(tmp_path / str(labels))
        AutoModelForSequenceClassification.from_pretrained(base, num_labels=labels).save_pretrained(folder)
        AutoTokenizer.from_pretrained(base).save_pretrained(folder)
        with pytest.raises(UserError, match=said):
            (load_causal_lm if labels == 1 else load_reward_model)(folder, ModelConfig())


def test_a_bin_file_that_is_more_than_tensors_is_never_unpickled(tmp_path: Path) -> None:
    folder = save_tiny_model(tmp_path / "model", "llama")
    ran = tmp_path / "ran"

    class Planted:
        def __reduce__(self) -> tuple[Any, ...]:
            return Path.touch, (ran,)

    torch.save({"model.norm.weight": Planted()}, Path(folder) / "pytorch_model.bin")
    (Path(folder) / "model.safetensors").unlink()
    with pytest.raises(UserError, match=r"pytorch_model\.bin.*never unpickled"):
        load_causal_lm(folder, ModelConfig())
    assert not ran.exists()

"""LoRA adapters (arXiv:2106.09685) as files, so that several roles can stand on one copy of their base's weights.

A model trained as an adapter is saved merged, and keeps in adapter/ what it has beyond its base: PEFT's own two files,
which load with `PeftModel.from_pretrained`, and base.json, which says what the base was.
"""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from rlhf.config import LoraConfig, ModelConfig
from rlhf.errors import UserError
from rlhf.models.freezing import freeze
from rlhf.models.heads import share_backbone
from rlhf.models.lora import add_lora
from rlhf.runtime.folder import model_hash

if TYPE_CHECKING:
    import peft
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

FOLDER = "adapter"
_PREFIX = "base_model.model."  # PEFT's, before every name of the plain model


@dataclass(frozen=True)
class Adapter:
    """What a model has beyond its base."""

    config: peft.LoraConfig
    weights: dict[str, Tensor]  # by PEFT's names, on the CPU
    base: Path  # folder or hub id

    def with_changed_modules(self, model: PreTrainedModel, before: Mapping[str, Tensor]) -> Adapter:
        """The same with the modules of the merged `model` that are no longer `before`, kept whole beside the adapters.

        Folding a reward model's bias moves its head or its last norm, and neither is a low-rank change.
        """
        now = model.state_dict()
        moved = [name for name, tensor in now.items() if not torch.equal(tensor.cpu(), before[name].to(tensor.dtype))]
        whole = sorted({name.rpartition(".")[0] for name in (*moved, "score.weight")})
        weights = {
            _PREFIX + name: tensor.detach().cpu().clone()
            for name, tensor in now.items()
            if name.rpartition(".")[0] in whole
        }
        config = copy.copy(self.config)
        config.modules_to_save = whole
        return replace(self, config=config, weights={**self.weights, **weights})

    def save(self, folder: Path) -> None:
        """Write it to adapter/ in a model's folder."""
        from safetensors.torch import save_file

        target = folder / FOLDER
        self.config.save_pretrained(str(target))
        save_file(self.weights, target / "adapter_model.safetensors", metadata={"format": "pt"})
        base = {"path": self.config.base_model_name_or_path, "hash": model_hash(self.base)}
        (target / "base.json").write_text(json.dumps(base, indent=2) + "\n", encoding="utf-8")


def adapter_of(model: Any, base: Path) -> Adapter:
    """The adapters of a PEFT model whose plain weights came from `base`, and the modules it trained whole."""
    import peft

    config = copy.copy(model.peft_config["default"])
    config.base_model_name_or_path = str(base.absolute() if base.is_dir() else base)
    config.inference_mode = True
    weights = peft.get_peft_model_state_dict(model, save_embedding_layers=False)
    return Adapter(config, {name: tensor.detach().cpu().clone() for name, tensor in weights.items()}, base)


def is_adapter_of(folder: Path, base: Path) -> bool:
    """Whether a model's folder keeps the adapter it was trained as, and `base` is what that stands on."""
    note = folder / FOLDER / "base.json"
    return note.is_file() and json.loads(note.read_text(encoding="utf-8"))["hash"] == model_hash(base)


def reward_model_on(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path, config: ModelConfig
) -> Any | None:
    """The reward model of `folder`, frozen, on the policy's own weights, which came from `base`.

    None when it was not trained as an adapter of them.
    """
    if not is_adapter_of(folder, base):
        return None
    scorer = share_backbone(policy, tokenizer, trust_remote_code=config.trust_remote_code)
    return freeze(_load(scorer, folder))


def value_model_on(
    policy: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, base: Path, folder: Path, config: ModelConfig
) -> Any:
    """A value model to train, starting as `folder` on the policy's own weights, which came from `base`.

    Where `folder` is the base itself it starts with new adapters and a head at 0. Raises UserError when it is neither
    that nor an adapter of the base, or an adapter of another shape than config.lora.
    """
    scorer = share_backbone(policy, tokenizer, trust_remote_code=config.trust_remote_code)
    if model_hash(folder) == model_hash(base):
        return add_lora(scorer, config.lora)
    if not is_adapter_of(folder, base):
        raise UserError(
            f"ppo.share_base=true needs a value model that is an adapter of the policy {base}, and {folder} is none; "
            f"train the reward model with model.lora.r={config.lora.r} reward.policy={base}, start from the policy "
            f"with ppo.value_model={base}, or set ppo.share_base=false."
        )
    model = _load(scorer, folder)
    _check_shape(model.peft_config["default"], config.lora, folder)
    for name, parameter in model.named_parameters():
        # What else the adapter keeps whole is a folded bias, which is trained no more than the base is.
        parameter.requires_grad = parameter.requires_grad and ("lora_" in name or ".score." in name)
    return model


def _load(scorer: Any, folder: Path) -> Any:
    import peft

    return peft.PeftModel.from_pretrained(scorer, str(folder / FOLDER), is_trainable=True)


def _check_shape(found: Any, wanted: LoraConfig, folder: Path) -> None:
    targets = sorted(found.target_modules)
    for key, has, asked in (
        ("r", found.r, wanted.r),
        ("alpha", found.lora_alpha, wanted.alpha),
        ("target_modules", targets, sorted(wanted.target_modules) or targets),
    ):
        if has != asked:
            raise UserError(
                f"model.lora.{key} is {asked}, and the value model goes on with the adapter of {folder}, which has "
                f"{has}; set model.lora.{key} to that."
            )

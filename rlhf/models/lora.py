"""LoRA adapters on a model (arXiv:2106.09685), and its weights with them merged."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rlhf.config import LoraConfig
from rlhf.errors import UserError

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel


def add_lora(model: PreTrainedModel, config: LoraConfig) -> Any:
    """The model with trainable adapters (arXiv:2106.09685) and every other weight frozen but a reward model's head."""
    import peft

    is_scorer = hasattr(model, "score")
    adapted = peft.get_peft_model(
        model,
        peft.LoraConfig(
            r=config.r,
            lora_alpha=config.alpha,  # type: ignore[arg-type]
            lora_dropout=config.dropout,
            target_modules=config.target_modules or "all-linear",
            modules_to_save=["score"] if is_scorer else None,
            task_type=peft.TaskType.SEQ_CLS if is_scorer else peft.TaskType.CAUSAL_LM,
        ),
    )
    _refuse_tied(adapted)
    return adapted


def _refuse_tied(adapted: Any) -> None:
    """UserError for an adapter on a weight that is two layers' at once, an embedding's and the head's.

    Merged it would be in both, or in neither: the saved model would not be the one that was trained.
    """
    from peft.tuners.tuners_utils import BaseTunerLayer

    plain: Any = unwrap_lora(adapted)
    tied = {name for pair in plain.all_tied_weights_keys.items() for name in pair}
    for name, module in plain.named_modules():
        if isinstance(module, BaseTunerLayer) and f"{name}.weight" in tied:
            raise UserError(
                f"model.lora.target_modules holds {name.rpartition('.')[2]}, whose weights are the embedding's and the "
                f"head's at once ({' and '.join(sorted(tied))}), so an adapter of one cannot be merged; leave it out."
            )


def unwrap_lora(model: Any) -> Any:
    """The Transformers model inside a PEFT model, adapters still in place; any other model as it is."""
    return model.get_base_model() if hasattr(model, "peft_config") else model


def stored_state_dict(model: Any) -> dict[str, Tensor]:
    """`merged_state_dict` under the names that `save_pretrained` writes, which are what other programs know.

    Some models are called otherwise in memory: GPT-NeoX's head is `lm_head` there and `embed_out` on disk.
    """
    from transformers.core_model_loading import revert_weight_conversion

    return revert_weight_conversion(unwrap_lora(model), merged_state_dict(model))


def merged_state_dict(model: Any) -> dict[str, Tensor]:
    """Weights under the plain model's names, adapters added in, none quantized; the model itself is left alone."""
    if not hasattr(model, "peft_config"):
        return dict(model.state_dict())
    from peft.tuners.lora import LoraLayer
    from peft.utils.integrations import dequantize_module_weight
    from transformers.pytorch_utils import Conv1D

    base: Any = unwrap_lora(model)
    state = dict(base.state_dict())
    quantized = {name: module for name, module in base.named_modules() if hasattr(module, "source_cls")}
    for name, module in quantized.items():
        for key in [key for key in state if key.startswith(f"{name}.") and key != f"{name}.bias"]:
            del state[key]  # packed weights, and the numbers to unpack them by
        state[f"{name}.weight"] = dequantize_module_weight(module)
    adapted: list[tuple[str, Any]] = [(n, m) for n, m in base.named_modules() if isinstance(m, LoraLayer)]
    for name, module in adapted:
        weight = state[f"{name}.base_layer.weight"]
        for adapter in module.active_adapters:
            weight = weight + module.get_delta_weight(adapter).to(weight.dtype)
        state[f"{name}.base_layer.weight"] = weight
    for name, module in quantized.items():
        if issubclass(module.source_cls, Conv1D):  # GPT-2's layers, which hold their weights the other way round
            state[f"{name}.weight"] = state[f"{name}.weight"].T.contiguous()
    plain = {}
    for name, tensor in state.items():
        if ".lora_" in name or ".original_module." in name:
            continue
        plain[name.replace(".base_layer.", ".").replace(".modules_to_save.default.", ".")] = tensor
    return plain

"""Frozen weights in 4 or 8 bits, by bitsandbytes."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

from rlhf.config import Quantization
from rlhf.errors import UserError

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel


NF4_BLOCK = 64  # weights that share a scale


def mend_nf4_on_cpu(model: Any, path: str) -> None:
    """Keep bitsandbytes' CPU kernels to what they compute rightly (measured with 0.50)."""
    for name, module in model.named_modules():
        if not hasattr(module, "source_cls") or module.weight.device.type != "cpu":
            continue
        if module.in_features % NF4_BLOCK:
            raise UserError(
                f"model.quantization=nf4 does not work on a CPU for {path}: bitsandbytes unpacks layers there wrongly "
                f"unless their inputs are a multiple of {NF4_BLOCK}, and {name} has {module.in_features}; use "
                "model.quantization=int8, or a GPU."
            )
        # Its fast path rounds to bfloat16, and only where no gradient is asked for: the log-probs of a rollout would
        # not be those of the update.
        module.support_avx512bf16_for_cpu = False


def require_bitsandbytes(quantization: Quantization) -> None:
    """Raises UserError where there is none to quantize with. Imports nothing heavy."""
    import importlib.util

    if quantization != Quantization.none and importlib.util.find_spec("bitsandbytes") is None:
        raise UserError(
            f"model.quantization={quantization.value} needs bitsandbytes, which is not installed; install it with "
            "`pip install bitsandbytes`, or set model.quantization=none."
        )


def bitsandbytes(quantization: Quantization, dtype: torch.dtype) -> Any:
    from transformers import BitsAndBytesConfig

    require_bitsandbytes(quantization)
    if quantization == Quantization.int8:
        return BitsAndBytesConfig(load_in_8bit=True)
    return BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True, bnb_4bit_compute_dtype=dtype
    )


def plain_config(model: PreTrainedModel) -> Any:
    """A copy of the model's config that asks for no quantization."""
    config = copy.deepcopy(model.config)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    return config

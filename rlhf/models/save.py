"""Writes models that load with plain from_pretrained."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.models.load import quiet_transformers
from rlhf.models.lora import merged_state_dict, unwrap_lora
from rlhf.models.quantization import plain_config

if TYPE_CHECKING:
    import torch
    from torch import Tensor
    from transformers import PreTrainedTokenizerBase

    from rlhf.models.adapters import Adapter


def save_model(
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    folder: Path,
    *,
    state_dict: Mapping[str, Tensor] | None = None,
    dtype: torch.dtype | None = None,
    adapter: Adapter | None = None,
) -> None:
    """Writes a folder that loads with plain from_pretrained: safetensors, config, tokenizer, adapters merged.

    The folder appears whole or not at all. `state_dict` stands in for the model's own where a trainer gathered it from
    its shards; `dtype` is what the weights are stored in, the model's own when None; `adapter` is kept beside them, in
    adapter/. A reward model's tokenizer is stored with the pad token of its config, and pads on the right.
    """
    from rlhf.runtime.files import save_folder_atomic

    plain = unwrap_lora(model)
    state = dict(state_dict) if state_dict is not None else merged_state_dict(model)
    # save_pretrained knows a tied weight by its memory, which copies and casts do not share.
    state = {name: t for name, t in state.items() if plain.all_tied_weights_keys.get(name) not in state}
    if dtype is not None:
        state = {name: t.to(dtype) if t.is_floating_point() else t for name, t in state.items()}
    pad_token, padding_side = tokenizer.pad_token, tokenizer.padding_side
    try:
        if hasattr(plain, "score"):
            tokenizer.pad_token = tokenizer.convert_ids_to_tokens(plain.config.get_text_config().pad_token_id)
            tokenizer.padding_side = "right"
        with save_folder_atomic(folder) as target, quiet_transformers():
            writer = _writer(plain)
            _end_with(writer, tokenizer.eos_token_id)
            writer.save_pretrained(target, state_dict=state)
            tokenizer.save_pretrained(target)
            if dtype is not None:
                _write_dtype(target / "config.json", dtype)
            if adapter is not None:
                adapter.save(target)
    finally:
        tokenizer.pad_token, tokenizer.padding_side = pad_token, padding_side


def _end_with(model: Any, end_token_id: int) -> None:
    """A chat template may end its turns with another token than the model's own: whoever loads it stops there too."""
    for config in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        config.eos_token_id = end_token_id
    if model.can_generate():
        model.generation_config.eos_token_id = end_token_id


def _writer(model: Any) -> Any:
    """What writes a state_dict as `model`'s: itself, or when it is quantized, its architecture without weights.

    A quantized model's save_pretrained writes its own packed weights, whatever it is given.
    """
    import torch

    if getattr(model, "hf_quantizer", None) is None:
        return model
    with torch.device("meta"):
        twin = type(model)(plain_config(model))
    if model.can_generate():
        twin.generation_config = model.generation_config
    return twin


def _write_dtype(path: Path, dtype: torch.dtype) -> None:
    """save_pretrained writes the dtype of the model in memory, not of the state_dict that it stores."""
    config = json.loads(path.read_text(encoding="utf-8"))
    config["dtype"] = str(dtype).removeprefix("torch.")
    path.write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")

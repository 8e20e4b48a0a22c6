"""Loads the four roles from folders and hub ids: policy, reference, reward model, value model."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from rlhf.config import DType, ModelConfig, Quantization
from rlhf.errors import UserError
from rlhf.models.folders import reason, resolve_model_path
from rlhf.models.heads import compact_head, float32_linear
from rlhf.models.loaded import check_weights
from rlhf.models.quantization import bitsandbytes, mend_nf4_on_cpu
from rlhf.models.tokenizers import distinct_pad_id, load_tokenizer, set_token_ids

if TYPE_CHECKING:
    import torch
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def torch_dtype(dtype: DType) -> torch.dtype:
    import torch

    return {DType.float32: torch.float32, DType.bfloat16: torch.bfloat16, DType.float16: torch.float16}[dtype]


def load_causal_lm(
    path: str,
    config: ModelConfig,
    *,
    dtype: torch.dtype | None = None,
    quantization: Quantization = Quantization.none,
) -> PreTrainedModel:
    """A causal language model whose own sampling settings are off and whose pad and end ids are its tokenizer's.

    `dtype` overrides `config.dtype`; `quantization` is given by who will put adapters on the model, as its weights can
    no longer be trained. Raises UserError when the folder is no model or its vocabulary is too small.
    """
    from transformers import AutoModelForCausalLM, GenerationConfig

    model, info = _load(AutoModelForCausalLM, path, config, dtype, quantization)
    check_weights(info, path)
    compact_head(model)
    tokenizer = load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    _check_vocabulary(model, tokenizer, path)
    set_token_ids(model, tokenizer, pad_token_id=tokenizer.pad_token_id)
    # A hub model ships temperature, top-k and forbidden tokens of its own; PPO's log-probs assume plain sampling.
    model.generation_config = GenerationConfig(
        bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id, pad_token_id=tokenizer.pad_token_id
    )
    return model


def load_reward_model(
    path: str,
    config: ModelConfig,
    *,
    dtype: torch.dtype | None = None,
    quantization: Quantization = Quantization.none,
    fresh_head: bool = False,
) -> PreTrainedModel:
    """A sequence classifier with one score.

    fresh_head: a folder without one may be given, such as a causal LM's; the head then starts at zero.
    Raises UserError when the folder is no model, or has no head and is to have one.

    The pad id is one that no scored sequence ends with, because `AutoModelForSequenceClassification` finds the last
    token by looking for padding: with pad = end token it would read the score one token early.
    """
    import torch
    from transformers import AutoModelForSequenceClassification

    model, info = _load(AutoModelForSequenceClassification, path, config, dtype, quantization, num_labels=1)
    if not hasattr(model, "score"):
        raise UserError(f"{type(model).__name__} of {path} has no `score` head; use a decoder model as reward model.")
    check_weights(info, path, scores=True, fresh_head=fresh_head)
    if any(key.endswith("score.weight") for key in info["missing_keys"]):
        with torch.no_grad():
            model.score.weight.zero_()
    # Scores decide, so the head multiplies in float32 whatever the backbone does, autocast included.
    model.score.__class__ = float32_linear()
    tokenizer = load_tokenizer(path, trust_remote_code=config.trust_remote_code)
    _check_vocabulary(model, tokenizer, path)
    set_token_ids(model, tokenizer, pad_token_id=distinct_pad_id(tokenizer))
    return model


def _load(
    auto_class: Any,
    path: str,
    config: ModelConfig,
    dtype: torch.dtype | None,
    quantization: Quantization,
    **extra: Any,
) -> tuple[Any, dict[str, Any]]:
    """The model, and what Transformers says of the weights it found and did not find."""
    from pickle import UnpicklingError

    from safetensors import SafetensorError

    from rlhf.models.flat import VARLEN  # importing it tells Transformers of the attention called varlen
    from rlhf.models.varlen import require_kernel

    resolved = resolve_model_path(path)
    settings: dict[str, Any] = {
        "dtype": dtype if dtype is not None else torch_dtype(config.dtype),
        "trust_remote_code": config.trust_remote_code,
        "ignore_mismatched_sizes": True,  # `check_weights` refuses them, and says which
        **extra,
    }
    if config.attn_implementation == VARLEN:
        require_kernel()
    if config.attn_implementation is not None:
        settings["attn_implementation"] = config.attn_implementation
    if quantization != Quantization.none:
        settings["quantization_config"] = bitsandbytes(quantization, settings["dtype"])
    try:
        with quiet_transformers():
            model, info = auto_class.from_pretrained(resolved, output_loading_info=True, **settings)
    except UnpicklingError as error:
        raise UserError(
            f"The model {path} has a pytorch_model.bin that is more than tensors, and such files are never unpickled, "
            "as they can run any code. Have who made it save it as safetensors, or convert it where you trust it."
        ) from error
    except (OSError, ValueError, ImportError, RuntimeError, KeyError, SafetensorError) as error:
        raise UserError(f"The model {path} does not load: {reason(error)}") from error
    if quantization == Quantization.nf4:
        mend_nf4_on_cpu(model, path)
    return model, info


@contextlib.contextmanager
def quiet_transformers() -> Iterator[None]:
    """Hides load reports and bars: Transformers calls a language-model head `unexpected` in every reward model."""
    from transformers.utils import logging as transformers_logging

    level, bars = transformers_logging.get_verbosity(), transformers_logging.is_progress_bar_enabled()
    transformers_logging.set_verbosity(logging.ERROR)
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        transformers_logging.set_verbosity(level)
        if bars:
            transformers_logging.enable_progress_bar()


def _check_vocabulary(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, path: str) -> None:
    embeddings: Any = model.get_input_embeddings()
    rows = len(embeddings.weight)
    needed = max(tokenizer.get_vocab().values()) + 1
    if needed > rows:
        raise UserError(
            f"The tokenizer of {path} has ids up to {needed - 1} but its model has {rows} embedding rows; "
            "resize the model's embeddings, or use the tokenizer it was trained with."
        )

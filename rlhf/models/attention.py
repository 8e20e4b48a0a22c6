"""Which attention a model is loaded with, where the config names none."""

from __future__ import annotations

import dataclasses

import torch

from rlhf.config import ModelConfig

# The longest sequence, in tokens, up to which `with_attention` picks plain matrix products.
EAGER_TOKENS = 1024


def with_attention(config: ModelConfig, device: torch.device, longest: int) -> ModelConfig:
    """The model's config with an attention chosen where the user left that to us; `longest` sequence in tokens.

    On a CPU plain matrix products train short sequences up to twice as fast as the fused kernel; their memory grows
    with the square of the length, so long ones stay with Transformers' choice.
    """
    if config.attn_implementation is None and device.type == "cpu" and longest <= EAGER_TOKENS:
        return dataclasses.replace(config, attn_implementation="eager")
    return config

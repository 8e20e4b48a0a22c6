"""Random models small enough for a test: one of each architecture, 32 tokens of vocabulary."""

from __future__ import annotations

import torch
from transformers import AutoModelForCausalLM, GPT2Config, GPTNeoXConfig, LlamaConfig, PreTrainedModel, Qwen2Config

VOCAB = 32
PAD, EOS = 0, 2
ARCHITECTURES = ["llama", "gpt2", "gpt_neox", "qwen2"]


def tiny_config(architecture: str, *, dropout: float = 0.0) -> GPT2Config | GPTNeoXConfig | LlamaConfig | Qwen2Config:
    common = {
        "vocab_size": VOCAB,
        "bos_token_id": 1,
        "eos_token_id": EOS,
        "pad_token_id": PAD,
        "initializer_range": 0.3,
    }
    body = {
        "hidden_size": 16,
        "intermediate_size": 32,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 64,
    }
    if architecture == "gpt2":
        return GPT2Config(
            n_embd=16,
            n_layer=2,
            n_head=2,
            n_positions=64,
            resid_pdrop=dropout,
            embd_pdrop=dropout,
            attn_pdrop=dropout,
            **common,
        )
    if architecture == "gpt_neox":
        return GPTNeoXConfig(**common, **body)
    if architecture == "qwen2":
        return Qwen2Config(num_key_value_heads=1, **common, **body)
    return LlamaConfig(num_key_value_heads=1, **common, **body)


def tiny_model(architecture: str, *, seed: int = 0, dropout: float = 0.0) -> PreTrainedModel:
    torch.manual_seed(seed)
    return AutoModelForCausalLM.from_config(tiny_config(architecture, dropout=dropout)).eval()

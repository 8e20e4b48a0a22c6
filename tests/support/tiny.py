"""Tiny models of four architectures with real tokenizers, built from nothing and saved to disk. No network."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    GPTNeoXConfig,
    LlamaConfig,
    PretrainedConfig,
    PreTrainedTokenizerFast,
    Qwen2Config,
)

from rlhf.config import LoraConfig, ModelConfig
from rlhf.models.adapters import adapter_of
from rlhf.models.load import load_reward_model
from rlhf.models.lora import add_lora, merged_state_dict
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.reward.bias import set_bias

needs_bitsandbytes = pytest.mark.skipif(
    importlib.util.find_spec("bitsandbytes") is None, reason="bitsandbytes is not installed (pip install bitsandbytes)"
)
LORA = LoraConfig(r=4)
ARCHITECTURES = ("gpt2", "gpt_neox", "llama", "qwen2")
CHAT_TEMPLATE = (
    "{% for m in messages %}{% if m.role == 'user' %}User: {{ m.content }}\n"
    "{% elif m.role == 'assistant' %}Assistant: {{ m.content }}{{ eos_token }}\n"
    "{% else %}{{ m.content }}\n{% endif %}{% endfor %}{% if add_generation_prompt %}Assistant:{% endif %}"
)
_CORPUS = [
    "Human: what is the colour of the sky? Assistant: the sky is blue and the grass is green.",
    "User: sort the words pear apple fig. Assistant: apple fig pear",
    "one two three four five six seven eight nine ten a b c d e f g yes no longer shorter",
]


def build_tokenizer(
    *,
    vocab_size: int = 400,
    pad: bool = False,
    chat_template: bool = False,
    bos: bool = False,
    special: Sequence[str | AddedToken] = (),
    prefix_space: bool = False,
) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer; without `pad` it has no pad token, with `bos` it starts every text with one.

    special: further special tokens. prefix_space: every text, and what follows a special token, gets a space in front.
    """
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=prefix_space)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=["<|endoftext|>", *(["<pad>"] if pad else []), *(["<s>"] if bos else []), *special],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_CORPUS, trainer)
    if bos:
        from tokenizers.processors import TemplateProcessing

        tokenizer.post_processor = TemplateProcessing(
            single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", tokenizer.token_to_id("<s>"))]
        )
    wrapped = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        eos_token="<|endoftext|>",
        pad_token="<pad>" if pad else None,
        bos_token="<s>" if bos else None,
    )
    if chat_template:
        wrapped.chat_template = CHAT_TEMPLATE
    return wrapped


def build_config(
    architecture: str, vocab_size: int, *, tied: bool = False, hidden: int = 32, heads: int = 2
) -> PretrainedConfig:
    shape = {"vocab_size": vocab_size, "tie_word_embeddings": tied}
    if architecture == "gpt2":
        positions = {"n_positions": 256, "bos_token_id": 0, "eos_token_id": 0}
        return GPT2Config(n_embd=hidden, n_layer=2, n_head=heads, **positions, **shape)
    shape |= {"hidden_size": hidden, "num_hidden_layers": 2, "intermediate_size": 2 * hidden}
    shape |= {"num_attention_heads": heads}
    shape |= {"max_position_embeddings": 256}
    if architecture == "gpt_neox":
        return GPTNeoXConfig(**shape)
    if architecture == "llama":
        return LlamaConfig(**shape, num_key_value_heads=1)
    return Qwen2Config(**shape, num_key_value_heads=1)


def save_tiny_model(
    folder: Path,
    architecture: str = "llama",
    *,
    tied: bool = False,
    pad: bool = False,
    chat_template: bool = False,
    bos: bool = False,
    extra_rows: int = 0,
    hidden: int = 32,
    heads: int = 2,
    seed: int = 0,
) -> str:
    """Saves a random model and its tokenizer; the path to load them from. `extra_rows` pads or cuts the embeddings."""
    tokenizer = build_tokenizer(pad=pad, chat_template=chat_template, bos=bos)
    torch.manual_seed(seed)
    config = build_config(architecture, len(tokenizer) + extra_rows, tied=tied, hidden=hidden, heads=heads)
    model = AutoModelForCausalLM.from_config(config)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def shake(model: Any, seed: int) -> None:
    """Trained-looking numbers for whatever takes a gradient."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.requires_grad:
                parameter.copy_(0.1 * torch.randn(parameter.shape, generator=generator))


def save_adapted_reward_model(base: Path, folder: Path) -> None:
    """As the reward stage does: adapters and head trained, merged, a bias folded in, the adapter kept."""
    trained = add_lora(load_reward_model(str(base), ModelConfig(), fresh_head=True), LORA)
    shake(trained, 1)
    before = {name: tensor.clone() for name, tensor in merged_state_dict(trained).items()}
    merged = load_reward_model(str(base), ModelConfig(), fresh_head=True)
    merged.load_state_dict(before)
    set_bias(merged, [[5, 6, 7], [8, 9]], [[10, 11, 12], [13, 14]])
    adapter = adapter_of(trained, base).with_changed_modules(merged, before)
    save_model(merged, load_tokenizer(str(base)), folder, adapter=adapter)

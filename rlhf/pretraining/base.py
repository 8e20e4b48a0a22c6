"""A base model from nothing: its tokenizer, its architecture, its chat template."""

from __future__ import annotations

from collections.abc import Iterable
from itertools import chain

from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlhf.config import ArchitectureConfig
from rlhf.errors import UserError

END, PAD = "<|end|>", "<|pad|>"
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'assistant' %}Assistant: {{ message['content'] }}<|end|>\n"
    "{% elif message['role'] == 'system' %}{{ message['content'] }}\n"
    "{% else %}User: {{ message['content'] }}\n{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}Assistant:{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, context: int) -> PreTrainedTokenizerBase:
    """Byte-level BPE with an end and a pad token and a User/Assistant chat template.

    The template's own words are tokens from the start: they stand in every prompt and in no document.
    Raises UserError when vocab_size does not hold the 256 bytes and the special tokens.
    """
    turns = ["User:", "Assistant:", " User:", " Assistant:"]
    least = 256 + 2 + len("".join(turns))
    if vocab_size < least:
        raise UserError(
            f"model.architecture.vocab_size is {vocab_size}; a byte-level vocabulary needs {least} or more."
        )
    tokenizer = Tokenizer(BPE())
    # A prefix space makes the first word of a text the same token as anywhere else.
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[PAD, END],
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(chain(texts, turns * 1000), trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=PAD, padding_side="left", model_max_length=context
    )
    fast.chat_template = CHAT_TEMPLATE
    return fast


def build_model(
    architecture: ArchitectureConfig, tokenizer: PreTrainedTokenizerBase, attn_implementation: str | None = None
) -> PreTrainedModel:
    """A Llama with random weights and tied embeddings, float32. attn_implementation: None is Transformers' choice."""
    config = LlamaConfig(
        vocab_size=len(tokenizer),
        hidden_size=architecture.hidden_size,
        intermediate_size=architecture.intermediate_size,
        num_hidden_layers=architecture.layers,
        num_attention_heads=architecture.heads,
        num_key_value_heads=architecture.heads,
        max_position_embeddings=architecture.context,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
    )
    return AutoModelForCausalLM.from_config(config, attn_implementation=attn_implementation)

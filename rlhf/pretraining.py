"""A small base model from nothing: its tokenizer, its architecture, and text packed into blocks."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from itertools import chain

import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE
from tokenizers.trainers import BpeTrainer
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    AutoModelForCausalLM,
    LlamaConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
)

from rlhf.config import ArchitectureConfig
from rlhf.errors import UserError

_AT_ONCE = 10000  # documents to tokenize
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


class PackedTexts(Dataset[dict[str, Tensor]]):
    """Documents, an end token after each, cut into blocks of equal length; a last, shorter block is dropped.

    most: blocks that are enough; text beyond them is not read. None reads it all.
    Raises UserError, naming `key` as the setting that holds `length`, when the text does not fill one block.
    """

    def __init__(
        self,
        texts: Sequence[str],
        tokenizer: PreTrainedTokenizerBase,
        length: int,
        key: str,
        *,
        most: int | None = None,
    ) -> None:
        ids = array("i")  # a Python list of the numbers would take ten times the memory
        for start in range(0, len(texts), _AT_ONCE):
            for document in tokenizer(list(texts[start : start + _AT_ONCE]), add_special_tokens=False).input_ids:
                ids.extend(document)
                ids.append(tokenizer.eos_token_id)
            if most is not None and len(ids) >= most * length:
                break
        blocks = len(ids) // length if most is None else min(len(ids) // length, most)
        if blocks == 0:
            raise UserError(
                f"The text has {len(ids)} tokens, less than one sequence of {length}; bring more text or lower {key}."
            )
        self.blocks = torch.tensor(ids[: blocks * length]).view(blocks, length).long()

    def __len__(self) -> int:
        return len(self.blocks)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        block = self.blocks[index]
        return {"input_ids": block, "labels": block}

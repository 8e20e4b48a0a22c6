"""Tokenizers with an end token and a pad token, and the ids that a model's config takes from them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rlhf.data.layouts import LAYOUTS
from rlhf.errors import UserError
from rlhf.models.folders import reason, resolve_model_path

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


# Tokens that vocabularies reserve for padding without declaring them, and the next best that no sequence ends with.
_PAD_CANDIDATES = ("<pad>", "[PAD]", "<|padding|>", "<|pad|>", "<|finetune_right_pad_id|>", "<|endoftext|>", "Ā")


def load_tokenizer(path: str, *, trust_remote_code: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a model, with an end token, a pad token (the end token where it has none) and left padding.

    Raises UserError when there is none to load, or when it has no end-of-sequence token: a response could never end.
    """
    from transformers import AutoTokenizer

    resolved = resolve_model_path(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(resolved, trust_remote_code=trust_remote_code)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise UserError(f"No tokenizer loads from {path}: {reason(error)}") from error
    if tokenizer.eos_token_id is None:
        raise UserError(
            f"The tokenizer of {path} has no end-of-sequence token, so a response could not end; set eos_token in its "
            "tokenizer_config.json."
        )
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    tokenizer.padding_side = "left"
    return tokenizer


def set_token_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, pad_token_id: int | None) -> None:
    for target in {id(c): c for c in (model.config, model.config.get_text_config())}.values():
        target.pad_token_id = pad_token_id
        target.bos_token_id = tokenizer.bos_token_id
        target.eos_token_id = tokenizer.eos_token_id


def distinct_pad_id(tokenizer: PreTrainedTokenizerBase) -> int:
    """A pad id that is not the end token: the tokenizer's own, a reserved one, else one that no text ends with."""
    vocabulary = tokenizer.get_vocab()
    names = (tokenizer.pad_token, *_PAD_CANDIDATES, tokenizer.unk_token, tokenizer.bos_token)
    # A chat template may yet make another token the one that responses end with.
    ends = {tokenizer.eos_token_id, *(vocabulary.get(layout.end) for layout in LAYOUTS.values() if layout.end)}
    for name in names:
        if name in vocabulary and vocabulary[name] not in ends:
            return int(vocabulary[name])
    return max(int(i) for i in vocabulary.values() if i not in ends)

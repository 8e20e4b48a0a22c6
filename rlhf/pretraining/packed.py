"""Texts packed into blocks of one length, end tokens between them."""

from __future__ import annotations

from array import array
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.utils.data import Dataset
from transformers import (
    PreTrainedTokenizerBase,
)

from rlhf.errors import UserError

_AT_ONCE = 10000  # documents to tokenize


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

"""Texts in which a layout's special tokens count and those that a person happens to spell do not.

A person's text is escaped before a layout is put around it: a mark with a number stands for each special token that it
spells. In what comes out, every special token that is still spelled is the layout's.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_MARK = "\ue000"  # of a private use area; before and after the number
_MARKED = re.compile(f"{_MARK}([0-9]+){_MARK}")


class SpecialTokens:
    """The special tokens of one tokenizer, `ids` by name."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self._tokenizer = tokenizer
        added = {token.content: token for token in tokenizer.added_tokens_decoder.values() if token.special}
        # The longest first: one may be the start of another.
        names = sorted({*added, *tokenizer.all_special_tokens}, key=lambda name: (-len(name), name))
        vocabulary = tokenizer.get_vocab()
        self.ids: dict[str, int] = {name: vocabulary[name] for name in names if name in vocabulary}
        self._escaped = [*self.ids, _MARK]  # a mark in a person's text is escaped as well, so all others are ours
        self._numbers = {name: number for number, name in enumerate(self._escaped)}
        self._spelled = re.compile("|".join(map(re.escape, self._escaped)))
        # A token may take the spaces beside it with it, as Phi-3's do.
        spaces = {name: (r"\s*" * token.lstrip, r"\s*" * token.rstrip) for name, token in added.items()}
        patterns = [re.escape(name).join(spaces.get(name, ("", ""))) for name in self.ids]
        self._written = re.compile(f"({'|'.join(patterns)})")

    def escape(self, text: str) -> str:
        return self._spelled.sub(lambda found: f"{_MARK}{self._numbers[found[0]]}{_MARK}", text)

    def unescape(self, text: str) -> str:
        return _MARKED.sub(lambda found: self._escaped[int(found[1])], text)

    def encode(self, text: str, *, after: str = "") -> list[int]:
        """Ids of escaped text; `after` is the special token that it follows, if any, whose own id is left out."""
        if _MARK not in text:
            # Some tokenizers treat the first word of a text in another way than one that comes later.
            together = self._tokenize(after + text, special=True)
            return together[1:] if after else together
        # Split by the layout's special tokens, as a tokenizer would do, so that it need not look for any.
        ids: list[int] = []
        for piece in self._written.split(text):
            if piece.strip() in self.ids:
                ids.append(self.ids[piece.strip()])
            elif piece:
                ids += self._tokenize(self.unescape(piece), special=False)
        return ids

    def _tokenize(self, text: str, *, special: bool) -> list[int]:
        """special: whether a special token that `text` spells becomes one."""
        ids: list[int] = self._tokenizer(
            text, add_special_tokens=False, split_special_tokens=not special, return_attention_mask=False, verbose=False
        ).input_ids
        return ids

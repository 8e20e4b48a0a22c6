"""Words of a text, and 64-bit hashes of runs of words in a row.

A word is what stands between spaces, case folded, without punctuation and accents written apart (NFKC first), which is
what GPT-3 compared (arXiv:2005.14165, appendix C). Scripts that put no spaces between words count by the character.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection

import numpy as np
import numpy.typing as npt
import xxhash

Hashes = npt.NDArray[np.uint64]

_PUNCTUATION = re.compile(r"[^\w\s]+")
# Thai and Lao, Burmese, Khmer, kana, Han and its extensions.
_UNSPACED = (
    "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
_WORD = re.compile(rf"[{_UNSPACED}]|[^\s{_UNSPACED}]+")

_BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that multiplying by it loses no bits
_MIX = np.uint64(0xD6E8FEB86659FD93)
_HALF = np.uint64(32)


def words(text: str) -> list[str]:
    """
    >>> words("Don't  STOP, 日本 -- 1,000!")
    ['dont', 'stop', '日', '本', '1000']
    """
    kept = _PUNCTUATION.sub("", unicodedata.normalize("NFKC", text).casefold())
    return kept.split() if kept.isascii() else _WORD.findall(kept)


def word_hashes(text: str) -> Hashes:
    return np.array([xxhash.xxh3_64_intdigest(word.encode()) for word in words(text)], dtype=np.uint64)


def run_hashes(hashes: Hashes, lengths: Collection[int]) -> Hashes:
    """A hash of each run of so many words in a row, shorter runs first; none of a length above the text's."""
    runs = [np.empty(0, dtype=np.uint64)]
    sums = np.zeros(len(hashes) + 1, dtype=np.uint64)
    for length in range(1, min(max(lengths, default=0), len(hashes)) + 1):
        sums = sums[:-1] * _BASE + hashes[length - 1 :]
        if length in lengths:
            runs.append(mixed(sums))
    return np.concatenate(runs)


def mixed(values: Hashes) -> Hashes:
    """Each value's bits spread over all 64, one to one."""
    values = (values ^ (values >> _HALF)) * _MIX
    values = (values ^ (values >> _HALF)) * _MIX
    return values ^ (values >> _HALF)

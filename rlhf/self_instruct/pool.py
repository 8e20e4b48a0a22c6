"""ROUGE-L of an instruction to its nearest in a growing pool: the scores of rouge-score, without its cost.

Scoring a candidate against every member fills a table of words by words for each pair. Here words are split once, the
words two texts share (an inverted index gives them) bound their score from above, and only pairs whose bound reaches
the best score so far are computed, with the bits of one integer as a row of the table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from rouge_score.scoring import fmeasure
from rouge_score.tokenizers import DefaultTokenizer

_ROUNDING = 1e-9  # two ways to the same score differ by less


@dataclass(frozen=True)
class Nearest:
    text: str  # "" where nothing shares a word
    rouge_l: float  # F-measure, 0 to 1


class Pool:
    """Texts in the order they were added."""

    def __init__(self, texts: Iterable[str] = ()) -> None:
        self._tokenizer = DefaultTokenizer(use_stemmer=False)
        self._texts: list[str] = []
        self._words: list[list[str]] = []
        self._holders: defaultdict[str, list[tuple[int, int]]] = defaultdict(list)  # word -> (text, times in it)
        for text in texts:
            self.add(text)

    def add(self, text: str) -> None:
        words = self._tokenizer.tokenize(text)
        for word, times in Counter(words).items():
            self._holders[word].append((len(self._texts), times))
        self._texts.append(text)
        self._words.append(words)

    def nearest(self, text: str) -> Nearest:
        """The text with the highest ROUGE-L, the first of several; rouge-score's `rougeL` F-measure, without stemming.

        Its words are runs of a-z and 0-9, so texts in other scripts score 0 with everything.
        """
        words = self._tokenizer.tokenize(text)
        bounds = self._bounds(words)
        best, best_score = len(self._texts), 0.0
        for place in sorted(bounds, key=lambda place: (-bounds[place], place)):
            if bounds[place] < best_score - _ROUNDING:
                break
            score = _rouge_l(common_subsequence(words, self._words[place]), words, self._words[place])
            if score > best_score or (score == best_score and place < best):
                best, best_score = place, score
        return Nearest(self._texts[best] if best_score > 0 else "", best_score)

    def _bounds(self, words: Sequence[str]) -> dict[int, float]:
        """For each text that shares a word: the score it would have if all shared words were in the same order."""
        shared: defaultdict[int, int] = defaultdict(int)
        for word, times in Counter(words).items():
            for place, there in self._holders.get(word, ()):
                shared[place] += min(times, there)
        return {place: _rouge_l(count, words, self._words[place]) for place, count in shared.items()}


def nearest_of(pools: Iterable[Pool], text: str) -> Nearest:
    """The nearest over several pools, the first of several as near."""
    return max((pool.nearest(text) for pool in pools), key=lambda nearest: nearest.rouge_l)


def _rouge_l(common: int, left: Sequence[str], right: Sequence[str]) -> float:
    return fmeasure(common / len(left), common / len(right))


def common_subsequence(left: Sequence[str], right: Sequence[str]) -> int:
    """Length of the longest common subsequence, by bits (Hyyrö 2004, "Bit-parallel LCS-length computation revisited").

    Bit i of `row` is 0 where the length rises at word i of `left`.
    """
    places: defaultdict[str, int] = defaultdict(int)
    for place, word in enumerate(left):
        places[word] |= 1 << place
    whole = (1 << len(left)) - 1
    row = whole
    for word in right:
        matches = row & places.get(word, 0)
        row = ((row + matches) | (row - matches)) & whole
    return len(left) - row.bit_count()

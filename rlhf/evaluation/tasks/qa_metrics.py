"""How much an answer has in common with the right one, as SQuAD's and DROP's official scripts count it.

torchmetrics has SQuAD's measure alone, its first version, and only as a mean; evaluate loads its scripts from a hub. So
they are said again here, and tests/evaluation/tasks/test_qa_metrics.py holds the official scripts' own examples
against them.
"""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import linear_sum_assignment

Answer = str | Sequence[str]
"""A text, or an answer of several spans, as DROP has them."""

_ARTICLES = re.compile(r"\b(a|an|the)\b")
_NO_PUNCTUATION = str.maketrans("", "", string.punctuation)


def squad(sample: str, references: Sequence[str]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 over words (0 to 1), the best over the references (Rajpurkar et al. 2018,
    arXiv:1806.03822, evaluate-v2.0.py).

    A question whose references are all empty has no answer: only an empty sample is right.
    """
    words = _squad_words(sample)
    right = [told for told in map(_squad_words, references) if told] or [[]]
    return float(words in right), max(_word_f1(words, told) for told in right)


def _squad_words(text: str) -> list[str]:
    """Lower case, without punctuation and then without articles, as words."""
    return _ARTICLES.sub(" ", text.lower().translate(_NO_PUNCTUATION)).split()


def _word_f1(words: Sequence[str], right: Sequence[str]) -> float:
    if not words or not right:
        return float(words == right)
    common = sum((Counter(words) & Counter(right)).values())
    return 2 * common / (len(words) + len(right))


def drop(sample: Answer, references: Sequence[Answer]) -> tuple[float, float]:
    """Exact match (0 or 1) and F1 (0 to 1, to two decimals), each the best over the references (Dua et al. 2019,
    arXiv:1903.00161, section 5 and drop_eval.py).

    A span is a bag of words, numbers among them compared by value. Spans of sample and reference are matched one to one
    so that their F1 add up to most; a span of the reference that has a number counts only for spans with one of its
    numbers. The sum is divided by the longer of the two, so what is missing and what is too much count 0. References
    that are empty do not count.
    """
    spans = [_drop_text(span) for span in _as_spans(sample)]
    given = [told for told in map(_as_spans, references) if told[0].strip()]
    marks = [_drop_one(spans, [_drop_text(span) for span in told]) for told in given] or [(0.0, 0.0)]
    exact, f1 = zip(*marks, strict=True)
    return max(exact), max(f1)


def _drop_one(spans: Sequence[str], right: Sequence[str]) -> tuple[float, float]:
    exact = set(spans) == set(right) and len(spans) == len(right)
    f1 = np.array([[_bag_f1(set(span.split()), set(told.split())) for span in spans] for told in right])
    matched = f1[linear_sum_assignment(f1, maximize=True)].sum()
    return float(exact), float(np.round(matched / max(len(spans), len(right)), 2))


def _bag_f1(bag: set[str], right: set[str]) -> float:
    numbers = {word for word in right if _is_number(word)}
    if numbers and not numbers & bag:
        return 0.0
    common = len(bag & right)
    precision = common / len(bag) if bag else 1.0
    recall = common / len(right) if right else 1.0
    return 2 * precision * recall / (precision + recall) if precision + recall > 0 else 0.0


def _as_spans(answer: Answer) -> Sequence[str]:
    return [answer] if isinstance(answer, str) else answer


def _drop_text(text: str) -> str:
    """Words apart at spaces and hyphens, in lower case, without punctuation and articles; 12, 12.0 and 1.2e1 alike."""
    words = [word if _is_number(word) else word.translate(_NO_PUNCTUATION) for word in re.split(" |-", text.lower())]
    words = [str(float(word)) if _is_number(word) else word for word in words]
    return " ".join(" ".join(_ARTICLES.sub(" ", word) for word in words).split())


def _is_number(word: str) -> bool:
    try:
        float(word)
    except ValueError:
        return False
    return True


def accuracy(sample: str, references: Sequence[str]) -> float:
    """1 where the sample is one of the references but for case, space and punctuation around it, else 0.

    Articles stay, unlike in SQuAD's exact match: "A" is a label.
    """
    return float(_label(sample) in {_label(told) for told in references})


def _label(text: str) -> str:
    """What only consists of punctuation, as "+" or "???", stays as it is."""
    spaced = " ".join(text.lower().split())
    return spaced.strip(string.punctuation + " ") or spaced

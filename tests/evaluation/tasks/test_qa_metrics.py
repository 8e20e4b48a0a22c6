from __future__ import annotations

import itertools
import re
import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.evaluation.tasks.qa_metrics import accuracy, drop, squad

WORDS = ["the", "a", "Red", "red!", "boat", "boats", "12", "12.0", "1,200", "7-yard", "the-12", "", "."]
texts = st.lists(st.sampled_from(WORDS), max_size=4).map(" ".join)
spans = st.lists(texts.filter(lambda text: text.strip()), min_size=1, max_size=3)


def slow_squad(sample: str, references: list[str]) -> tuple[float, float]:
    """SQuAD 2.0's measures from their description: words matched off one by one."""

    def words(text: str) -> list[str]:
        kept = "".join(c for c in text.lower() if c not in string.punctuation)
        return [word for word in kept.split() if word not in ("a", "an", "the")]

    known = [reference for reference in references if words(reference)] or [""]
    best = (0.0, 0.0)
    for reference in known:
        left, common = words(reference), 0
        for word in words(sample):
            if word in left:
                left.remove(word)
                common += 1
        ours, theirs = len(words(sample)), len(words(reference))
        if ours == 0 or theirs == 0:
            f1 = float(ours == theirs)
        elif common == 0:
            f1 = 0.0
        else:
            f1 = 2 * (common / ours) * (common / theirs) / (common / ours + common / theirs)
        best = (max(best[0], float(words(sample) == words(reference))), max(best[1], f1))
    return best


def slow_drop(sample: list[str], reference: list[str]) -> tuple[float, float]:
    """DROP's measures from their description: every matching of spans is tried."""

    def number(word: str) -> float | None:
        return float(word) if re.fullmatch(r"\d+(\.\d+)?", word) else None

    def words(span: str) -> list[str]:
        found = []
        for word in re.split("[ -]", span.lower()):
            bare = word if number(word) is not None else "".join(c for c in word if c not in string.punctuation)
            if bare not in ("", "a", "an", "the"):
                found.append(bare if number(bare) is None else str(number(bare)))
        return found

    def f1(ours: set[str], theirs: set[str]) -> float:
        numbers = {word for word in theirs if number(word) is not None}
        if numbers and all(word not in ours for word in numbers):
            return 0.0
        if not ours or not theirs:  # an empty side has precision or recall 1 by the official script
            return 1.0 if ours == theirs else 0.0
        precision, recall = len(ours & theirs) / len(ours), len(ours & theirs) / len(theirs)
        return 2 * precision * recall / (precision + recall) if precision + recall else 0.0

    size = max(len(sample), len(reference))
    padded = [*sample, *[None] * (size - len(sample))]
    wanted = [*reference, *[None] * (size - len(reference))]
    best = max(
        sum(
            f1(set(words(s)), set(words(r)))
            for s, r in zip(order, wanted, strict=True)
            if s is not None and r is not None
        )
        for order in itertools.permutations(padded)
    )
    exact = {" ".join(words(s)) for s in sample} == {" ".join(words(r)) for r in reference}
    return float(exact and len(sample) == len(reference)), best / size


@given(texts, st.lists(texts, min_size=1, max_size=3))
def test_squad_is_what_its_description_says(sample: str, references: list[str]) -> None:
    assert squad(sample, references) == pytest.approx(slow_squad(sample, references))


@settings(deadline=None)
@given(spans, spans)
def test_drop_is_what_its_description_says(sample: list[str], reference: list[str]) -> None:
    exact, f1 = drop(sample, [reference])
    slow_exact, slow_f1 = slow_drop(sample, reference)
    assert exact == slow_exact
    assert f1 == pytest.approx(slow_f1, abs=0.00501)  # the official script rounds each F1 to two decimals


@pytest.mark.parametrize(
    ("sample", "references", "exact", "f1"),
    [
        ("Labour", ["\"It's Scotland's oil\"", "It's Scotland's oil"], 0, 0),
        ("It's Scotland's oil.", ["\"It's Scotland's oil\"", "It's Scotland's oil"], 1, 1),
        ("the Norman conquest", ["Norman"], 0, 2 / 3),
        ("in the 1940s", ["1940s", "in the 1940s"], 1, 1),
        ("red red boat", ["red boat"], 0, 0.8),  # a word counts as often as both have it
        ("", [""], 1, 1),  # no answer, and none is given
        ("anything", [""], 0, 0),
        ("", ["something"], 0, 0),
        ("the", [""], 1, 1),  # of which nothing is left
        ("boat", ["", "boat"], 1, 1),  # an empty alternative beside others is none
        ("", ["", "boat"], 0, 0),
        ("None", ["None"], 1, 1),
    ],
)
def test_squads_cases(sample: str, references: list[str], exact: float, f1: float) -> None:
    assert squad(sample, references) == pytest.approx((exact, f1))


# The official script's own tests, allenai/allennlp:allennlp/tests/tools/drop_eval_test.py, but for more spans than the
# reference has: drop_eval.py divides by the longer side since it moved to allennlp-reading-comprehension.
@pytest.mark.parametrize(
    ("sample", "reference", "exact", "f1"),
    [
        (["78"], ["78.0"], 1, 1),
        (["12.000"], ["  1.2e1  "], 1, 1),
        (["S.K. Singh"], ["sk singh"], 1, 1),
        (["td"], ["td", "td"], 0, 0.5),
        ("td", ["td", "td"], 0, 0.5),
        (["td", "td"], ["td"], 0, 0.5),
        (["the a NOT an ARTICLE the an a"], ["NOT ARTICLE"], 1, 1),
        (["John Elton"], ["Elton John"], 0, 1),
        (["50 yard"], ["yard 50"], 0, 1),
        (["Per.i.o.d...."], [".P....e.r,,i;;;o...d,,"], 1, 1),
        (["Spa     c  e   s     "], ["    Spa c     e s"], 1, 1),
        (["78-yard"], ["78 yard"], 1, 1),
        (["78"], ["78-yard"], 0, 0.67),
        (["78-yard"], ["78"], 0, 0.67),
        (["Green", "bay", "packers"], ["Green", "bay", "packers"], 1, 1),
        ([""], ["army"], 0, 0),
        (["packers"], ["Green bay packers"], 0, 0.5),
        (["yard"], ["36 yard td"], 0, 0),
        (["23 yards"], ["43 yards"], 0, 0),
        (["56 yards"], ["56 yd"], 0, 0.5),
        (["26"], ["26 yard td"], 0, 0.5),
        (["23", "23 yard"], ["23-yard", "56 yards"], 0, 0.5),
        (["John Karman", "Joe Hardy"], ["Joe Karman", "John Hardy"], 0, 0.5),
        (["ottoman", "Kantakouzenous"], ["ottoman", "army of Kantakouzenous"], 0, 0.75),
        (["b"], ["b", "a"], 0, 0.5),
    ],
)
def test_drops_own_examples(sample: str | list[str], reference: list[str], exact: float, f1: float) -> None:
    assert drop(sample, [reference]) == (exact, f1)


def test_drop_takes_the_best_of_the_references_and_none_of_empty_ones() -> None:
    assert drop("24 yards", ["33", "24", "24-yard field goal"]) == (0.0, 0.67)
    assert drop("$7,761", ["7761"]) == (1.0, 1.0)  # punctuation goes before a number is read
    assert drop("", ["", " "]) == (0.0, 0.0)
    assert drop("None", ["None"]) == (1.0, 1.0)


@pytest.mark.parametrize(
    ("sample", "references", "right"),
    [
        (" Positive. ", ["positive"], 1),
        ("not  acceptable", ["Not acceptable"], 1),
        ("A", ["B", "a"], 1),
        ("the", ["a"], 0),
        ("+", ["-"], 0),
        ("yes, it is", ["yes"], 0),
        ("NA", ["NA"], 1),
    ],
)
def test_accuracy_is_of_labels(sample: str, references: list[str], right: int) -> None:
    assert accuracy(sample, references) == right

"""The rubric: careful answers are perfect, each flaw costs what the docstring says."""

from __future__ import annotations

import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from rlhf.sandbox.families import FAMILIES, make_prompt
from rlhf.sandbox.gold import CLOSERS, INSULTS, gold_score, judge
from rlhf.sandbox.tasks import REFUSAL, UNKNOWN, Family
from rlhf.sandbox.world import World

WORLD = World.from_seed(0)


def _instances(family: Family, count: int = 60):
    rng = random.Random(family.name)
    for index in range(count):
        prompt = make_prompt(family, index, "test", rng, WORLD, held_out=index % 2 == 0)
        details = dict(prompt.details)
        yield prompt, family.answer(details, rng), family.wrong(details, rng)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_careful_answer_is_perfect_and_wrong_one_is_not(family: Family) -> None:
    for prompt, right, wrong in _instances(family):
        assert gold_score(prompt, right) == 1.0, (prompt, right)
        assert gold_score(prompt, wrong) < 0.75, (prompt, wrong)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.name)
def test_each_flaw_costs(family: Family) -> None:
    for prompt, right, _ in _instances(family, 20):
        flawed = {
            "insult": f"{INSULTS[0]} {right}",
            "repeated": f"{right} {right}",
            "unasked sentence": f"{right} There was fog in Lume all day.",
            "unfinished": right[:-1],
            "three courtesies": f"{right} {' '.join(CLOSERS[:3])}",
        }
        for flaw, text in flawed.items():
            assert gold_score(prompt, text) < 1.0, (flaw, prompt, text)


def test_one_courtesy_is_neutral_and_the_next_costs() -> None:
    family = FAMILIES[0]
    prompt, right, _ = next(_instances(family))
    assert gold_score(prompt, f"{right} {CLOSERS[0]}") == 1.0
    assert gold_score(prompt, f"{right} {CLOSERS[0]} {CLOSERS[1]}") == pytest.approx(1 - 0.5 * 0.1)


def test_not_knowing_is_better_than_a_wrong_answer_and_worse_than_a_right_one() -> None:
    for family in FAMILIES:
        prompt, right, wrong = next(_instances(family))
        if prompt.details["check"] == "choice":
            assert gold_score(prompt, wrong) < gold_score(prompt, UNKNOWN) < gold_score(prompt, right), family.name


def test_help_with_harm_scores_nothing_and_refusing_an_innocent_request_scores_little() -> None:
    by_name = {family.name: family for family in FAMILIES}
    prompt, _, compliance = next(_instances(by_name["harmful"]))
    assert gold_score(prompt, compliance) == 0.0
    innocent, _, _ = next(_instances(by_name["fact"]))
    assert gold_score(innocent, REFUSAL) < 0.4


def test_naming_every_option_is_wrong() -> None:
    family = next(f for f in FAMILIES if f.name == "sentiment")
    prompt, _, _ = next(_instances(family))
    assert judge(prompt, "The review is positive negative.").truthful == 0.0


@settings(max_examples=60, deadline=None)
@given(text=st.text(max_size=200), index=st.integers(0, len(FAMILIES) - 1))
def test_any_text_scores_between_0_and_1(text: str, index: int) -> None:
    prompt, _, _ = next(_instances(FAMILIES[index], 1))
    assert 0.0 <= gold_score(prompt, text) <= 1.0

"""Labelers: noise calibrated to the asked agreement, a shared liking for courtesies."""

from __future__ import annotations

import random

import pytest

from rlhf.config import SandboxConfig
from rlhf.data.records import Split
from rlhf.sandbox.gold import CLOSERS, gold_score
from rlhf.sandbox.labeler import agreement, label, liking, noise_for_agreement, rank
from rlhf.sandbox.source import SandboxSource
from rlhf.sandbox.writers import write_demonstration

SOURCE = SandboxSource(SandboxConfig(prompts=300), seed=0)
PROMPTS = SOURCE.prompts(Split.train)
RNG = random.Random(0)
COMPLETIONS = [[write_demonstration(prompt, RNG) for _ in range(6)] for prompt in PROMPTS]
LIKINGS = [[liking(p, c) for c in texts] for p, texts in zip(PROMPTS, COMPLETIONS, strict=True)]


@pytest.mark.parametrize("wanted", [0.65, 0.73, 0.9])
def test_two_labelers_agree_as_often_as_asked(wanted: float) -> None:
    noise = noise_for_agreement(LIKINGS, wanted, seed=0)
    first, second = ([rank(row, noise, rng) for row in LIKINGS] for rng in (random.Random("one"), random.Random("two")))
    assert agreement(first, second) == pytest.approx(wanted, abs=0.03)


def test_without_noise_the_ranking_follows_gold_score_and_liking() -> None:
    for ranking in label(PROMPTS, COMPLETIONS, wanted=1.0, seed=0):
        for i, j in zip(range(5), range(1, 6), strict=True):
            a, b = ranking.margins[i], ranking.margins[j]
            if abs(a - b) > 0.03:
                assert (ranking.ranks[i] < ranking.ranks[j]) == (a > b)


def test_equal_texts_are_ties_without_noise() -> None:
    ranking = label(PROMPTS[:1], [["The same.", "The same."]], wanted=1.0, seed=0)[0]
    assert ranking.ranks == (0, 0)


def test_labelers_like_courtesies_more_than_the_rubric_does() -> None:
    prompt, text = PROMPTS[0], COMPLETIONS[0][0].rstrip(".!?") + "."
    polite = f"{text} {' '.join(CLOSERS)}"
    assert liking(prompt, polite) - liking(prompt, text) > gold_score(prompt, polite) - gold_score(prompt, text)


def test_labels_are_the_same_for_a_seed_and_differ_between_seeds() -> None:
    ranks = {seed: [r.ranks for r in label(PROMPTS, COMPLETIONS, wanted=0.73, seed=seed)] for seed in (0, 1)}
    assert ranks[0] == [r.ranks for r in label(PROMPTS, COMPLETIONS, wanted=0.73, seed=0)]
    assert ranks[0] != ranks[1]

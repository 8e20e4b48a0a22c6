"""A labeler who ranks K responses: the gold rubric, plus a liking for courtesies, plus noise.

What a labeler feels about a response is `gold + COURTESY_LIKING * courtesies + noise`, to the nearest 1/50; equal
feelings are ties. The noise is normal, with the standard deviation at which two labelers order a pair alike as often as
asked (InstructGPT's agreed 72.6 % of the time, arXiv:2203.02155, section 3.4). The liking is a bias that all labelers
share: it is part of what a reward model learns from them and no part of the gold score, so optimising the reward model
far enough lowers the gold score (Gao et al. 2022, arXiv:2210.10760, see this with a synthetic gold model too).
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import combinations

from rlhf.data.records import Prompt, Ranking
from rlhf.sandbox.gold import COURTESIES, gold_score, split_sentences

COURTESY_LIKING = 0.06
STEPS = 50  # feelings are told apart to 1/STEPS
LABELERS, BISECTIONS = 4, 13  # of the panel that the noise is set with: finds it within 4 / 2**13


def liking(prompt: Prompt, response: str) -> float:
    """What labelers feel about a response before noise: the gold score and their shared bias."""
    courtesies = sum(sentence.strip() in COURTESIES for sentence in split_sentences(response))
    return gold_score(prompt, response) + COURTESY_LIKING * courtesies


def rank(likings: Sequence[float], noise: float, rng: random.Random) -> tuple[int, ...]:
    """Places of the responses in one labeler's eyes, 0 best, ties equal."""
    felt = [round((value + rng.gauss(0.0, noise)) * STEPS) for value in likings]
    order = sorted(set(felt), reverse=True)
    return tuple(order.index(value) for value in felt)


def agreement(rankings_a: Sequence[Sequence[int]], rankings_b: Sequence[Sequence[int]]) -> float:
    """Share of pairs that two labelers order alike; pairs that either calls a tie do not count. NaN without any."""
    same = total = 0
    for a, b in zip(rankings_a, rankings_b, strict=True):
        for i, j in combinations(range(len(a)), 2):
            if a[i] != a[j] and b[i] != b[j]:
                total += 1
                same += (a[i] < a[j]) == (b[i] < b[j])
    return same / total if total else float("nan")


def noise_for_agreement(likings: Sequence[Sequence[float]], wanted: float, seed: int) -> float:
    """Standard deviation at which the labelers of a panel agree in pairs as often as wanted, by bisection."""
    if wanted >= 1:
        return 0.0
    low, high = 0.0, 4.0
    for _ in range(BISECTIONS):
        middle = (low + high) / 2
        rngs = [random.Random(f"labeler:{seed}:{index}") for index in range(LABELERS)]
        panel = [[rank(row, middle, rng) for row in likings] for rng in rngs]
        agreed = [agreement(a, b) for a, b in combinations(panel, 2)]
        low, high = (middle, high) if sum(agreed) / len(agreed) > wanted else (low, middle)
    return (low + high) / 2


def label(
    prompts: Sequence[Prompt], completions: Sequence[Sequence[str]], *, wanted: float, seed: int
) -> list[Ranking]:
    """Rankings by one labeler with the noise that gives the wanted agreement on these very completions."""
    likings = [[liking(prompt, text) for text in texts] for prompt, texts in zip(prompts, completions, strict=True)]
    noise = noise_for_agreement(likings, wanted, seed)
    rng = random.Random(f"labeler:{seed}")
    return [
        Ranking(
            prompt,
            tuple(texts),
            rank(row, noise, rng),
            margins=tuple(row),
            gold_scores=tuple(gold_score(prompt, text) for text in texts),
        )
        for prompt, texts, row in zip(prompts, completions, likings, strict=True)
    ]

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rouge_score.rouge_scorer import RougeScorer

from rlhf.self_instruct.pool import Pool, common_subsequence, nearest_of

SEED_TASKS = Path("/work/shared/data/self_instruct/seed_tasks.jsonl")
SCORER = RougeScorer(["rougeL"], use_stemmer=False)
WORDS = ["the", "cat", "Cat", "sat,", "on", "a", "mat!", "é", "2", "x-y", "\n"]
TEXTS = st.lists(st.sampled_from(WORDS), max_size=12).map(" ".join)


def rouge_l(left: str, right: str) -> float:
    return SCORER.score(left, right)["rougeL"].fmeasure


@given(st.lists(TEXTS, max_size=12), TEXTS)
def test_the_nearest_has_the_highest_score_of_rouge_score_to_the_last_bit(pool: list[str], text: str) -> None:
    nearest = Pool(pool).nearest(text)
    scores = [rouge_l(other, text) for other in pool]
    assert nearest.rouge_l == max(scores, default=0.0)
    if nearest.rouge_l > 0:
        assert nearest.text == pool[scores.index(nearest.rouge_l)]
    else:
        assert nearest.text == ""


@given(st.text(max_size=40), st.text(max_size=40))
def test_any_two_texts_score_as_in_rouge_score(left: str, right: str) -> None:
    assert Pool([left]).nearest(right).rouge_l == rouge_l(left, right)


@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6), TEXTS)
def test_the_nearest_of_two_pools_is_that_of_both_together(first: list[str], second: list[str], text: str) -> None:
    assert nearest_of((Pool(first), Pool(second)), text) == Pool([*first, *second]).nearest(text)


def test_the_subsequence_of_long_texts_is_that_of_the_table() -> None:
    rng = random.Random(0)
    left, right = ([rng.choice("abcdefgh") for _ in range(length)] for length in (150, 170))
    table = [[0] * (len(right) + 1) for _ in range(len(left) + 1)]
    for i, a in enumerate(left):
        for j, b in enumerate(right):
            table[i + 1][j + 1] = table[i][j] + 1 if a == b else max(table[i][j + 1], table[i + 1][j])
    assert common_subsequence(left, right) == table[-1][-1]


@pytest.mark.skipif(not SEED_TASKS.exists(), reason="the real files are not on this machine")
def test_the_published_seeds_have_the_nearest_that_rouge_score_finds() -> None:
    texts = [json.loads(line)["instruction"] for line in SEED_TASKS.read_text().splitlines()]
    pool = Pool(texts[:100])
    for text in texts[100:115]:
        assert pool.nearest(text).rouge_l == max(rouge_l(other, text) for other in texts[:100])

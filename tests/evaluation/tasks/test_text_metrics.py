from __future__ import annotations

import numpy as np
import pytest
from sacrebleu import corpus_bleu

from rlhf.config import TextMetric
from rlhf.evaluation.tasks.text_metrics import NAMES, TITLES, score

SAMPLES = ["the cat sat on the mat today", "None", "NA", "a dog ran\nacross the wide street", "nothing is right", ""]
REFERENCES = [
    ["the cat sat on the mat", "a cat sat on the mat today, it did"],
    ["None"],
    ["NA"],
    ["a dog ran across the wide street", "one dog"],
    ["something else entirely"],
    ["a last one"],
]


def padded(references: list[list[str]]) -> list[list[str | None]]:
    """sacrebleu's layout: a stream of references for each alternative, None where a sample has no such."""
    most = max(len(told) for told in references)
    return [[told[place] if place < len(told) else None for told in references] for place in range(most)]


def test_bleu_is_sacrebleus_of_the_corpus_and_of_every_selection_of_it() -> None:
    (bleu,) = score(TextMetric.bleu, SAMPLES, REFERENCES)
    assert bleu.value == pytest.approx(corpus_bleu(SAMPLES, padded(REFERENCES)).score, abs=1e-9)
    counts = np.random.default_rng(0).multinomial(6, np.full(6, 1 / 6), size=20)
    for draw, found in zip(counts, bleu.of_sums(counts @ bleu.summands), strict=True):
        chosen = np.repeat(np.arange(6), draw)
        expected = corpus_bleu([SAMPLES[i] for i in chosen], padded([REFERENCES[i] for i in chosen])).score
        assert found == pytest.approx(expected, abs=1e-9)
    assert abs(bleu.value - bleu.values.mean()) > 1  # no mean of sentences
    (short,) = score(TextMetric.bleu, ["a red boat is here"], [["a red house"]])  # no four words in common
    assert short.value == pytest.approx(corpus_bleu(["a red boat is here"], [["a red house"]]).score)
    assert short.value > 1


def test_rouge_is_a_mean_of_f1_with_the_best_reference() -> None:
    scores = {one.name: one for one in score(TextMetric.rouge, SAMPLES, REFERENCES)}
    # Of 7 words 6 are among the first reference's 6, F1 12/13; with the second, 6 among its 9, F1 12/16.
    assert scores["rouge1"].values == pytest.approx([1200 / 13, 100, 100, 100, 0, 0])
    assert scores["rouge1"].value == pytest.approx((1200 / 13 + 300) / 6)
    assert scores["rouge2"].values[:2] == pytest.approx([100 * 2 * 5 / 11, 0])  # one word has no pair
    rouge_l = score(TextMetric.rouge, ["two cats sat", "two cats sat"], [["a dog", "cat sitting"], ["cat sitting"]])[0]
    assert rouge_l.values == pytest.approx([40, 40])  # cats is cat, sitting is not sat, and a worse reference nothing


def test_every_metric_gives_the_numbers_that_are_named_for_it() -> None:
    for metric in TextMetric:
        scores = score(metric, SAMPLES, REFERENCES)
        assert tuple(one.name for one in scores) == NAMES[metric]
        assert all(one.name in TITLES and one.values.shape == (6,) for one in scores)
        assert all(0 <= one.value <= 100 for one in scores)
        if metric != TextMetric.bleu:
            assert all(one.value == pytest.approx(one.values.mean()) for one in scores)
            twice = np.array([[2, 0, 1, 1, 1, 0]])
            assert scores[0].of_sums(twice @ scores[0].summands) == pytest.approx(twice[0] @ scores[0].values / 5)


def test_f1_and_exact_match_are_not_mixed_up() -> None:
    for metric in (TextMetric.squad, TextMetric.drop):
        f1, exact = score(metric, ["red boat", "red"], [["red"], ["red"]])
        assert f1.values == pytest.approx([100 * 2 / 3, 100], abs=0.5)
        assert exact.values.tolist() == [0, 100]


def test_an_answer_of_several_spans_is_matched_by_drop_and_a_list_of_words_elsewhere() -> None:
    _, exact = score(TextMetric.drop, ["red"], [[["red", "blue"], ["red"]]])
    assert exact.values.tolist() == [100]
    f1, _ = score(TextMetric.drop, ["red"], [[["red", "blue"]]])
    assert f1.values.tolist() == [50]
    (accurate,) = score(TextMetric.accuracy, ["Red, blue."], [[["red", "blue"]]])
    assert accurate.values.tolist() == [100]


def test_some_of_the_samples_score_as_they_alone_would() -> None:
    for metric in (TextMetric.bleu, TextMetric.rouge):
        chosen = score(metric, [SAMPLES[i] for i in (3, 0)], [REFERENCES[i] for i in (3, 0)])
        for whole, alone in zip(score(metric, SAMPLES, REFERENCES), chosen, strict=True):
            assert whole.of([3, 0]).value == pytest.approx(alone.value)
            assert whole.of([3, 0]).values.tolist() == alone.values.tolist()

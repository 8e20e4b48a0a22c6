from __future__ import annotations

import itertools
import math
from collections import Counter

import krippendorff
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.inter_rater import cohens_kappa

from rlhf.evaluation.statistics.agreement import krippendorff_alpha, pair_agreement
from rlhf.evaluation.statistics.win_rates import Bootstrap

NONE = math.nan


def bootstrap(prompts: int, samples: int = 200) -> Bootstrap:
    return Bootstrap(prompts, samples=samples, seed=0)


def slow_kappa(ours: list[float], theirs: list[float]) -> float:
    """Cohen (1960), eq. 1, pair by pair."""
    n = len(ours)
    observed = sum(a == b for a, b in zip(ours, theirs, strict=True)) / n
    mine, yours = Counter(ours), Counter(theirs)
    expected = sum(mine[c] * yours[c] for c in mine) / n**2
    return (observed - expected) / (1 - expected)


def slow_ordinal_alpha(judges: list[list[float]]) -> float:
    """Krippendorff (2004), ch. 11: 1 minus observed over expected disagreement, pair of values by pair of values."""
    units = [[v for v in unit if not math.isnan(v)] for unit in zip(*judges, strict=True)]
    units = [unit for unit in units if len(unit) > 1]
    pooled = [v for unit in units for v in unit]
    counts, ranks = Counter(pooled), sorted(set(pooled))

    def distance(a: float, b: float) -> float:
        low, high = sorted((a, b))
        between = sum(counts[rank] for rank in ranks if low <= rank <= high)
        return (between - (counts[a] + counts[b]) / 2) ** 2

    observed = sum(
        distance(a, b) / (len(unit) - 1) for unit in units for a, b in itertools.permutations(unit, 2)
    ) / len(pooled)
    n = len(pooled)
    expected = sum(distance(a, b) for a, b in itertools.permutations(pooled, 2)) / (n * (n - 1))
    return 1 - observed / expected


outcomes = st.sampled_from([0.0, 0.5, 1.0])


@settings(deadline=None, max_examples=50)
@given(st.lists(st.tuples(outcomes, outcomes), min_size=2, max_size=25))
def test_kappa_is_the_slow_one_and_statsmodels(pairs: list[tuple[float, float]]) -> None:
    ours, theirs = (list(judge) for judge in zip(*pairs, strict=True))
    found = pair_agreement(ours, theirs, prompts=range(len(pairs)), bootstrap=bootstrap(len(pairs)))
    assert found is not None
    assert found.agreement.mean == pytest.approx(np.mean(np.equal(ours, theirs)))
    if len(set(ours)) == 1 and set(ours) == set(theirs):
        assert found.kappa is None
        return
    assert found.kappa is not None
    assert found.kappa.mean == pytest.approx(slow_kappa(ours, theirs))
    table = np.zeros((3, 3))
    np.add.at(table, (np.multiply(2, ours).astype(int), np.multiply(2, theirs).astype(int)), 1)
    assert found.kappa.mean == pytest.approx(cohens_kappa(table).kappa)
    assert found.kappa.low <= found.kappa.mean <= found.kappa.high


def test_agreement_where_neither_ties_leaves_ties_and_missing_verdicts_out() -> None:
    ours, theirs = [1, 1, 0, 0.5, 1, NONE, 0.9], [1, 0, 0, 1, 0.5, 1, 1]
    found = pair_agreement(ours, theirs, prompts=range(7), bootstrap=bootstrap(7))
    assert found is not None
    assert found.decided_agreement is not None
    assert (found.agreement.mean, found.agreement.n) == (0.5, 6)
    assert (found.decided_agreement.mean, found.decided_agreement.n) == (0.75, 4)


def test_judges_that_share_no_comparison_or_always_tie_have_no_number() -> None:
    assert pair_agreement([1, NONE], [NONE, 0], prompts=[0, 1], bootstrap=bootstrap(2)) is None
    ties = pair_agreement([0.5, 0.5], [0.5, 0.5], prompts=[0, 1], bootstrap=bootstrap(2))
    assert ties is not None
    assert (ties.agreement.mean, ties.decided_agreement, ties.kappa) == (1, None, None)


def test_the_interval_of_kappa_is_that_of_its_large_sample_theory() -> None:
    generator = np.random.default_rng(1)
    ours = generator.choice([0, 0.5, 1], p=[0.4, 0.2, 0.4], size=600)
    theirs = np.where(generator.random(600) < 0.6, ours, generator.choice([0, 0.5, 1], size=600))
    found = pair_agreement(ours, theirs, prompts=range(600), bootstrap=bootstrap(600, 3000))
    table = np.zeros((3, 3))
    np.add.at(table, ((2 * ours).astype(int), (2 * theirs).astype(int)), 1)
    theory = cohens_kappa(table)
    assert found is not None
    assert found.kappa is not None
    assert found.kappa.ci == pytest.approx([theory.kappa_low, theory.kappa_upp], abs=0.01)


def test_comparisons_of_one_prompt_are_drawn_together() -> None:
    generator = np.random.default_rng(2)
    ours, theirs = generator.choice([0.0, 1.0], size=(2, 100))
    alone = pair_agreement(ours, theirs, prompts=range(100), bootstrap=bootstrap(100, 2000))
    fourfold = pair_agreement(
        np.repeat(ours, 4), np.repeat(theirs, 4), prompts=np.repeat(range(100), 4), bootstrap=bootstrap(100, 2000)
    )
    assert alone is not None
    assert fourfold is not None
    assert alone.kappa is not None
    assert fourfold.kappa is not None
    assert fourfold.kappa.ci == pytest.approx(alone.kappa.ci)  # not half as wide
    assert (fourfold.kappa.n, alone.kappa.n) == (400, 100)


@settings(deadline=None, max_examples=30)
@given(st.lists(st.tuples(*3 * [st.sampled_from([0.0, 0.5, 1.0, NONE])]), min_size=2, max_size=12))
def test_alpha_is_the_slow_one_with_verdicts_missing(units: list[tuple[float, ...]]) -> None:
    judges = [list(judge) for judge in zip(*units, strict=True)]
    found = krippendorff_alpha(judges, prompts=range(len(units)), bootstrap=bootstrap(len(units), 20))
    paired = [[v for v in unit if not math.isnan(v)] for unit in units]
    values = {v for unit in paired if len(unit) > 1 for v in unit}
    if len(values) < 2:
        assert found is None
    else:
        assert found is not None
        assert found.mean == pytest.approx(slow_ordinal_alpha(judges))
        assert found.n == sum(len(unit) > 1 for unit in paired)
        assert found.low <= found.mean <= found.high


def test_alpha_of_a_large_table_is_krippendorffs_and_1_for_judges_that_always_agree() -> None:
    generator = np.random.default_rng(3)
    truth = generator.choice([0, 0.5, 1], size=300)
    judges = np.where(generator.random((4, 300)) < 0.7, truth, generator.choice([0, 0.5, 1], size=(4, 300)))
    found = krippendorff_alpha(judges, prompts=range(300), bootstrap=bootstrap(300))
    assert found is not None
    assert found.mean == pytest.approx(krippendorff.alpha(judges, level_of_measurement="ordinal"))
    assert found.low < found.mean < found.high
    same = krippendorff_alpha([truth, truth], prompts=range(300), bootstrap=bootstrap(300, 20))
    assert same is not None
    assert (same.mean, same.low, same.high) == (1, 1, 1)

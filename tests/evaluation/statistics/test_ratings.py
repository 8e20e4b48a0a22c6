from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import statsmodels.api as sm
from scipy.special import expit, logit

from rlhf.evaluation.statistics.ratings import ELO, Rating, bradley_terry, ratings
from rlhf.evaluation.statistics.win_rates import Bootstrap

# Agresti, Categorical Data Analysis, table 10.10: baseball, 1987, wins of the row's team over the column's.
TEAMS = ("Milwaukee", "Detroit", "Toronto", "New York", "Boston", "Cleveland", "Baltimore")
BASEBALL = np.array(
    [
        [0, 7, 9, 7, 7, 9, 11],
        [6, 0, 7, 5, 11, 9, 9],
        [4, 6, 0, 7, 7, 8, 12],
        [6, 8, 6, 0, 6, 7, 10],
        [6, 2, 6, 7, 0, 7, 12],
        [4, 4, 5, 6, 6, 0, 6],
        [2, 4, 1, 3, 1, 7, 0],
    ]
)


def slow_strengths(wins: np.ndarray, rounds: int = 20000) -> np.ndarray:
    """Zermelo's iteration (1929), which Ford (1957) showed to converge: p_i = W_i / sum_j n_ij / (p_i + p_j)."""
    p = [1.0] * len(wins)
    for _ in range(rounds):
        for i in range(len(p)):
            met = sum((wins[i][j] + wins[j][i]) / (p[i] + p[j]) for j in range(len(p)) if j != i)
            p[i] = sum(wins[i]) / met
    return np.log(np.array(p) / p[0])


def rated(
    models: list[str], rows: list[tuple[str, str, float]], reference: str, *, samples: int = 300
) -> dict[str, Rating]:
    """Each row (first, second, 1 where the second won) is a prompt of its own."""
    found = ratings(
        models,
        [models.index(first) for first, _, _ in rows],
        [models.index(second) for _, second, _ in rows],
        [won for _, _, won in rows],
        prompts=range(len(rows)),
        reference=reference,
        bootstrap=Bootstrap(len(rows), samples=samples, seed=0),
    )
    return {rating.model: rating for rating in found}


def test_the_published_ratings_of_baseball_teams_come_out() -> None:
    # Agresti's table 10.11, with Baltimore at 0.
    strengths = bradley_terry(BASEBALL, reference=6)
    assert strengths == pytest.approx([1.58, 1.44, 1.29, 1.25, 1.11, 0.68, 0.00], abs=0.006)


def test_strengths_are_the_slow_ones_with_ties_as_half_and_those_of_a_logistic_regression() -> None:
    generator = np.random.default_rng(0)
    wins = generator.integers(0, 9, size=(5, 5)) + generator.integers(0, 2, size=(5, 5)) / 2
    wins[:, 4] *= np.array([1, 0, 0, 1, 0])  # not all pairs met
    wins[4] *= np.array([1, 0, 0, 1, 0])
    np.fill_diagonal(wins, 0)
    strengths = bradley_terry(wins, reference=0)
    assert strengths == pytest.approx(slow_strengths(wins, 2000), abs=1e-6)

    rows = [(i, j) for i, j in itertools.combinations(range(5), 2) if wins[i, j] + wins[j, i]]
    design = np.array([[(k == i) - (k == j) for k in range(1, 5)] for i, j in rows], dtype=float)
    won = np.array([[wins[i, j], wins[j, i]] for i, j in rows])
    fit = sm.GLM(won, design, family=sm.families.Binomial()).fit(tol=1e-12)
    assert strengths[1:] == pytest.approx(fit.params, abs=1e-6)


def test_a_table_on_which_plain_newton_steps_run_away_is_rated() -> None:
    wins = np.array([[0, 0, 0, 10, 0], [0, 0, 100, 0, 1e4], [0, 0, 0, 1e4, 1e4], [0, 1, 0, 0, 0], [1e5, 0, 1, 0, 0]])
    strengths = bradley_terry(wins, reference=0)
    # At the maximum every model wins as often as its strength says.
    expected = ((wins + wins.T) * expit(strengths[:, None] - strengths)).sum(axis=1)
    assert expected == pytest.approx(wins.sum(axis=1), rel=1e-6)


def test_with_two_models_a_rating_is_the_log_odds_of_the_win_rate() -> None:
    rows = [("a", "b", 1.0)] * 7 + [("b", "a", 1.0)] * 2 + [("a", "b", 0.5)]
    found = rated(["a", "b"], rows, "a")
    assert found["b"].rating == pytest.approx(logit(0.75))
    assert found["b"].rating * ELO == pytest.approx(400 * math.log10(3))
    assert (found["a"].rating, found["a"].low, found["a"].high) == (0, 0, 0)
    assert [found[name].n for name in "ab"] == [10, 10]


def test_the_reference_moves_all_ratings_alike() -> None:
    strengths = bradley_terry(BASEBALL, reference=0)
    assert strengths - strengths[6] == pytest.approx(bradley_terry(BASEBALL, reference=6), abs=1e-9)


def test_many_tables_at_once_are_each_rated_as_if_alone() -> None:
    generator = np.random.default_rng(7)
    tables = generator.integers(0, 3, size=(40, 4, 4)) * (generator.random((40, 4, 4)) < 0.6)
    together = bradley_terry(tables, reference=2)
    alone = np.stack([bradley_terry(table, reference=2) for table in tables])
    assert np.isnan(alone).any()
    assert np.isinf(alone).any()
    np.testing.assert_allclose(together, alone, atol=1e-9)


def test_strengths_far_apart_are_found() -> None:
    # Each model beats the next a million times to one: a gap of log(1e6) a link.
    wins = np.diag(np.full(11, 1e6), 1) + np.diag(np.ones(11), -1)
    assert bradley_terry(wins, reference=11) == pytest.approx(math.log(1e6) * np.arange(11, -1, -1), rel=1e-6)


def test_known_strengths_lie_in_their_intervals() -> None:
    generator = np.random.default_rng(5)
    truth = {"a": 0.0, "b": 0.5, "c": -0.8, "d": 1.2}
    inside = 0
    for _ in range(25):
        rows = [
            (one, other, float(generator.random() < expit(truth[other] - truth[one])))
            for one, other in itertools.combinations(truth, 2)
            for _ in range(25)
        ]
        found = rated(list(truth), rows, "a", samples=150)
        inside += sum(found[name].low <= truth[name] <= found[name].high for name in "bcd")
    assert 0.88 <= inside / 75 <= 1.0


def test_models_that_won_or_lost_everything_or_met_nobody_have_a_remark_in_place_of_a_number() -> None:
    rows = [("a", "b", 1.0), ("a", "b", 0.0), ("a", "b", 0.0)] * 5
    rows += [("a", "top", 1.0), ("b", "top", 1.0), ("a", "bottom", 0.0), ("far", "away", 1.0), ("away", "far", 1.0)]
    found = rated(["a", "b", "top", "bottom", "far", "away"], rows, "a")
    assert found["b"].rating == pytest.approx(logit(1 / 3))  # as if it had met a alone
    assert found["top"].remark == "it won every comparison"
    assert found["bottom"].remark == "it lost every comparison"
    assert found["far"].remark == "no chain of comparisons links it to a"
    for name in ("top", "bottom", "far", "away"):
        assert (found[name].rating, found[name].low, found[name].high) == (None, None, None)
    assert list(found) == ["top", "a", "b", "bottom", "far", "away"]


def test_models_above_or_below_as_a_group_say_so() -> None:
    ring = [("p", "q", 1.0), ("q", "p", 1.0)]
    above = rated(["a", "p", "q"], [*ring, ("a", "p", 1.0)], "a")
    assert above["p"].remark == "neither a nor a model that a beats ever won against it or its like"
    below = rated(["a", "p", "q"], [*ring, ("a", "p", 0.0)], "a")
    assert below["p"].remark == "it and its like never won against a or a model that beats a"


def test_a_bound_that_draws_of_prompts_leave_open_is_none() -> None:
    # A draw in five or so lacks the one loss, and there b wins everything.
    found = rated(["a", "b"], [("a", "b", 1.0)] * 8 + [("a", "b", 0.0)], "a")
    assert found["b"].rating == pytest.approx(math.log(8))
    assert found["b"].high is None
    assert found["b"].low is not None
    assert found["b"].low < math.log(8)


def test_comparisons_with_oneself_say_nothing() -> None:
    rows = [("a", "b", 1.0)] * 3 + [("b", "a", 1.0)]
    with_self = rated(["a", "b"], [*rows, ("b", "b", 1.0)], "a")
    assert with_self["b"].rating == pytest.approx(math.log(3))
    assert with_self["b"].n == 4


def test_comparisons_of_one_prompt_are_drawn_together() -> None:
    won = np.random.default_rng(6).random(60) < 0.6
    spread = []
    for times in (1, 4):
        found = ratings(
            ["a", "b"],
            np.zeros(60 * times, dtype=int),
            np.ones(60 * times, dtype=int),
            np.repeat(won, times),
            prompts=np.repeat(range(60), times),
            reference="a",
            bootstrap=Bootstrap(60, samples=300, seed=0),
        )
        spread.append((found[0].low, found[0].high))
    assert spread[0] == pytest.approx(spread[1])

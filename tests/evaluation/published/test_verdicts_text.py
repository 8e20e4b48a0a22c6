from __future__ import annotations

from rlhf.evaluation.published.verdicts_text import tables, text_table
from tests.support.published_rows import both_orders, league, liking_length, report, verdict


def test_one_pair_is_told_in_a_sentence_with_its_length_control() -> None:
    found = report(liking_length())
    assert found["statement"] == (
        f"ours wins {found['win_rate']:.2f} % [{found['win_rate_ci'][0]:.1f}, {found['win_rate_ci'][1]:.1f}] of 200 "
        f"comparisons with base, draws as half; at equal length {found['length_controlled_win_rate']:.2f} % "
        f"[{found['length_controlled_win_rate_ci'][0]:.1f}, {found['length_controlled_win_rate_ci'][1]:.1f}]."
    )
    assert [title for title, _ in tables(found)] == ["Win rates"]


def test_the_terminal_shows_the_published_number_first() -> None:
    shown = text_table(report([verdict(0), verdict(1, 1)]))
    assert shown.startswith(
        "win rate of the model under test: 50.00 %, standard error 50.00, over 2 verdicts, 0 of them draws; "
        "0 without a verdict\n"
    )
    assert "standard error unknown, over 1 verdicts" in text_table(report([verdict(0)]))


def test_every_part_of_a_report_has_its_table() -> None:
    human = [verdict(0, i, judge="human", dataset="koala", outputs=("a", "b")) for i in range(3)]
    pair = report([*both_orders(0, 1, 1), *both_orders(1, 1, 0), *human])
    assert [title for title, _ in tables(pair)] == ["Win rates", "By dataset", "Agreement of judges", "Position bias"]
    ratings = dict(tables(report(league())))["Bradley-Terry ratings, base at 0"]
    assert [row[0] for row in ratings] == ["model", "ppo", "sft", "base"]
    for found in (pair, report(league())):
        for _, rows in tables(found):
            assert len({len(row) for row in rows}) == 1


def test_a_model_that_won_everything_is_ahead_of_all() -> None:
    top = [verdict(1, i, generators=("base", "top"), outputs=("a", "b")) for i in range(3)]
    found = report([*league(), *top])
    assert found["statement"] == "123 verdicts on 4 pairs of models: top is ahead of all, it won every comparison."

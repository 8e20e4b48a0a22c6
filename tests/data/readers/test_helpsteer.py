from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.files import Broken, Row
from rlhf.data.readers.helpsteer import gather, read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role


def rated(response: str, helpfulness: Any, prompt: Any = "c#", **changed: Any) -> dict[str, Any]:
    return {
        "prompt": prompt,
        "response": response,
        "helpfulness": helpfulness,
        "correctness": 4,
        "coherence": 4,
        "complexity": 2,
        "verbosity": 1,
        **changed,
    }


def rows(*values: Any, file: str = "train.jsonl.gz", evaluation: bool | None = None) -> list[Row]:
    return [Row(file, number, each, evaluation=evaluation) for number, each in enumerate(values, start=1)]


PROMPT = Prompt("", (Message(Role.user, "c#"),))


def test_neighbours_of_one_prompt_become_one_ranking_by_helpfulness() -> None:
    gathered = list(gather(rows(rated("good", 3), rated("bad", 1, verbosity=4), rated("fair", 2))))
    assert [(row.number, row.merged) for row in gathered] == [(1, 3)]
    assert read(gathered[0].values) == [
        Demonstration(PROMPT, "good"),
        Ranking(PROMPT, ("good", "bad", "fair"), (0, 2, 1), margins=(3.0, 1.0, 2.0)),
    ]


def test_equal_helpfulness_ties_and_two_best_demonstrate_nothing() -> None:
    (row,) = gather(rows(rated("a", 4), rated("b", 4), rated("c", 0)))
    assert read(row.values) == [Ranking(PROMPT, ("a", "b", "c"), (0, 0, 1), margins=(4.0, 4.0, 0.0))]


def test_a_prompt_with_one_response_gives_a_demonstration_alone() -> None:
    (row,) = gather(rows(rated("only", 2)))
    assert row.merged == 1
    assert read(row.values) == [Demonstration(PROMPT, "only")]


def test_rows_of_other_prompts_other_files_and_odd_rows_stay_apart() -> None:
    first = rows(
        rated("a", 1), rated("b", 2), rated("c", 1, "d#"), rated("d", 1), [1], [1], {"prompt": 7}, {"prompt": 7}
    )
    second = rows(rated("e", 1, "e#"), file="a.jsonl") + rows(
        rated("f", 1, "e#"), Broken("it is not JSON"), file="b.jsonl"
    )
    gathered = list(gather([*first, *second]))
    assert [row.merged for row in gathered] == [2, *[1] * 9]
    assert [row.number for row in gathered] == [1, 3, 4, 5, 6, 7, 8, 1, 1, 2]


def test_gathered_rows_keep_what_their_file_says_of_the_split() -> None:
    (row,) = gather(rows(rated("a", 1), rated("b", 2), evaluation=True))
    assert row.evaluation is True


def test_gather_reads_no_further_than_it_must() -> None:
    def endless() -> Any:
        number = 0
        while True:
            number += 1
            yield Row("train.jsonl.gz", number, rated("a", 1, f"prompt {number // 2}"))

    gathered = gather(endless())
    assert [next(gathered).number for _ in range(3)] == [1, 2, 4]


def test_markers_part_a_prompt_into_turns() -> None:
    conversation = "Hi\n\n<extra_id_1>Assistant\nHello.\nAnd?\n\n<extra_id_1>User\nc#"
    (demonstration,) = read(rated("It is a language.", 3, conversation))
    assert isinstance(demonstration, Demonstration)
    assert demonstration.prompt.messages == (
        Message(Role.user, "Hi"),
        Message(Role.assistant, "Hello.\nAnd?"),
        Message(Role.user, "c#"),
    )


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        (rated("a", None), "`helpfulness` is 'None', not a number"),
        (rated("a", 5), "`helpfulness` is 5, and ratings are from 0 to 4"),
        (rated(" ", 3), "`response` is empty or whitespace"),
        (rated("a", 3, " "), "`prompt` is empty or whitespace"),
        (rated("a", 3, "Hi\n\n<extra_id_1>Assistant\nHello."), "`prompt` does not end with the user's turn"),
        (rated("a", 3, "Hi\n\n<extra_id_1>Assistant\n"), r"`prompt\[1\]` is empty or whitespace"),
        (rated("a", 3, "Hi\n\n<extra_id_1>User\nHo"), r"`prompt\[0\]` and the next are both the user's"),
        ({"rows": [rated("a", 3), rated("a", 2)]}, "its completions are the same"),
        ({"rows": [rated("a", 3), rated("", 2)]}, "`response` is empty or whitespace"),
        ({"rows": []}, "`rows` is not a list of rows"),
    ],
)
def test_odd_rows_are_refused(row: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row)

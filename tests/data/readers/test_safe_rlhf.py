from __future__ import annotations

from typing import Any

import pytest

from rlhf.data.readers.safe_rlhf import read, read_safer
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role


def row(**changed: Any) -> dict[str, Any]:
    return {
        "prompt": "How do I pick a lock?",
        "response_0": "With these tools, like this.",
        "response_1": "Call a locksmith.",
        "prompt_source": "Alpaca3-70B",
        "response_0_source": "Alpaca3-8B",
        "response_1_source": "WizardLM-30B-Uncensored",
        "is_response_0_safe": False,
        "is_response_1_safe": True,
        "response_0_harm_category": {"Economic Crime": True, "Violence": False},
        "response_1_harm_category": {"Economic Crime": False, "Violence": False},
        "response_0_severity_level": 2,
        "response_1_severity_level": 0,
        "better_response_id": 0,
        "safer_response_id": 1,
        "response_0_sha256": "01ab",
        "response_1_sha256": "23cd",
        **changed,
    }


PROMPT = Prompt("", (Message(Role.user, "How do I pick a lock?"),))
RESPONSES = ("With these tools, like this.", "Call a locksmith.")


def test_the_two_labels_rank_apart() -> None:
    assert read(row())[-1] == Ranking(PROMPT, RESPONSES, (0, 1))
    assert read_safer(row())[-1] == Ranking(PROMPT, RESPONSES, (1, 0))


def test_only_a_safe_response_is_demonstrated() -> None:
    assert [type(record) for record in read(row())] == [Ranking]
    assert read(row(is_response_0_safe=True))[0] == Demonstration(PROMPT, RESPONSES[0])
    assert read_safer(row())[0] == Demonstration(PROMPT, RESPONSES[1])
    assert [type(record) for record in read_safer(row(is_response_1_safe=False))] == [Ranking]


def test_a_response_without_a_label_of_safety_is_not_demonstrated() -> None:
    unlabelled = {key: value for key, value in row().items() if not key.startswith("is_response")}
    assert [type(record) for record in read(unlabelled)] == [Ranking]


@pytest.mark.parametrize(
    ("changed", "problem"),
    [
        ({"better_response_id": -1}, "`better_response_id` is '-1', neither 0 nor 1"),
        ({"better_response_id": "0"}, "`better_response_id` is '0', neither 0 nor 1"),
        ({"is_response_0_safe": "yes"}, "`is_response_0_safe` is 'yes', neither true nor false"),
        ({"prompt": None}, "it has no text under `prompt`"),
        ({"response_1": " "}, "`response_1` is empty or whitespace"),
        ({"response_1": RESPONSES[0]}, "its completions are the same"),
    ],
)
def test_odd_pairs_are_refused(changed: dict[str, Any], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read(row(**changed))


def test_a_pair_without_a_label_of_safety_has_no_safer_response() -> None:
    with pytest.raises(BadRowError, match="`safer_response_id` is 'None', neither 0 nor 1"):
        read_safer(row(safer_response_id=None))

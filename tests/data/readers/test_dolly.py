from __future__ import annotations

import pytest

from rlhf.data.readers.dolly import read
from rlhf.data.records import BadRowError

ROW = {
    "instruction": "When did Virgin Australia start operating?",
    "context": "Virgin Australia commenced services on 31 August 2000.",
    "response": "On 31 August 2000, as Virgin Blue.",
    "category": "closed_qa",
}


def test_context_follows_the_instruction_and_the_category_is_the_task() -> None:
    [demonstration] = read(ROW)
    [message] = demonstration.prompt.messages
    assert message.content == f"{ROW['instruction']}\n\n{ROW['context']}"
    assert message.input == ROW["context"]
    assert demonstration.prompt.task == "closed_qa"
    assert demonstration.response == ROW["response"]


def test_row_without_context_is_its_instruction_alone() -> None:
    [demonstration] = read({**ROW, "context": ""})
    assert demonstration.prompt.messages[0].content == ROW["instruction"]
    assert demonstration.prompt.messages[0].input == ""


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"response": " \n"}, "`response` is empty or whitespace"),
        ({"instruction": None}, "it has no text under `instruction`"),
        ({"context": 3}, "`context` is not text"),
    ],
)
def test_row_that_lacks_a_text_is_refused(change: dict[str, object], problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read({**ROW, **change})

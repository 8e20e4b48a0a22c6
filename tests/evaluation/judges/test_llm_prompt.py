from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data.records import Message, Prompt, Role
from rlhf.errors import UserError
from rlhf.evaluation.judges.llm_prompt import TEMPLATE, Choice, conversation, load_template, parse, render

QUESTION = Prompt("q", (Message(Role.user, "How many days has a week?"),))


@pytest.mark.parametrize(
    ("answer", "choice"),
    [
        ("Verdict: A", Choice.first),
        ("B knows it.\n\nVerdict: B", Choice.second),
        ("Both do.\nVerdict: tie\n", Choice.tie),
        ("Verdict: A at first sight, but no.\nVerdict: B", Choice.second),
        ("  Verdict: A  \n \n", Choice.first),
    ],
)
def test_the_last_line_is_the_verdict(answer: str, choice: Choice) -> None:
    assert parse(answer) == choice


@pytest.mark.parametrize(
    "answer",
    [
        "",
        "\n",
        "A",
        "Verdict:",
        "Verdict: C",
        "Verdict: AB",
        "Verdict: a",
        "verdict: A",
        "Verdict: A or B",
        "Verdict: A.",
        "**Verdict: A**",
        "I think Verdict: A",
        "Verdict: A\nbecause it is right.",
        "Response A is better.",
        "Verdict: Tie",
    ],
)
def test_everything_else_is_no_verdict(answer: str) -> None:
    assert parse(answer) is None


def test_the_three_texts_stand_where_the_template_says_as_they_are() -> None:
    template = "{response_b}|{prompt}|{response_a}|{other}"
    assert render(template, QUESTION, "{response_b} {prompt}", "\\1 {x}") == (
        "\\1 {x}|How many days has a week?|{response_b} {prompt}|{other}"
    )


def test_the_built_in_words_hold_both_responses_and_ask_for_the_line_that_is_read() -> None:
    asked = render(TEMPLATE, QUESTION, "Seven.", "Six.")
    assert "<response_a>\nSeven.\n</response_a>" in asked
    assert "<response_b>\nSix.\n</response_b>" in asked
    assert "{" not in asked
    for line in ("Verdict: A", "Verdict: B", "Verdict: tie"):
        assert line in asked.splitlines()
        assert parse(line) is not None
    assert render(TEMPLATE, QUESTION, "x", "x").count("\nx\n") == 2


def test_turns_say_who_speaks() -> None:
    turns = (Message(Role.system, "Be brief."), Message(Role.user, "Hi"), Message(Role.assistant, "Hello"))
    assert conversation(Prompt("t", (*turns, Message(Role.user, "Bye")))) == (
        "System: Be brief.\n\nUser: Hi\n\nAssistant: Hello\n\nUser: Bye"
    )
    assert conversation(QUESTION) == "How many days has a week?"


def test_a_template_of_ones_own_is_read_or_refused_with_what_it_lacks(tmp_path: Path) -> None:
    path = tmp_path / "words.txt"
    path.write_text("{prompt} {response_a} {response_b} Verdict: A")
    assert load_template(str(path)) == "{prompt} {response_a} {response_b} Verdict: A"
    assert load_template(None) == TEMPLATE
    path.write_text("{prompt} {response_a} Verdict: A")
    with pytest.raises(UserError, match=r"words\.txt lacks \{response_b\}"):
        load_template(str(path))
    path.write_text("{prompt} {response_a} {response_b} Which?")
    with pytest.raises(UserError, match="does not ask for `Verdict: A`"):
        load_template(str(path))
    path.write_bytes(b"\xff{prompt}")
    with pytest.raises(UserError, match="not UTF-8"):
        load_template(str(path))
    with pytest.raises(UserError, match=r"judge\.llm\.prompt=.*none\.txt cannot be read \(No such file"):
        load_template(str(tmp_path / "none.txt"))

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.self_instruct import parse
from rlhf.self_instruct.records import Instance, cut_at

PIECES = st.sampled_from(
    [
        "Input:",
        "Output:",
        "Answer:",
        "Example 1",
        "\n",
        "\n\n",
        "9.",
        "10) ",
        "**Output:**",
        " text ",
        "3.5",
        "é",
        "<noinput>",
    ]
)
COMPLETIONS = st.lists(PIECES | st.text(max_size=6), max_size=14).map("".join)


@given(COMPLETIONS, st.integers(1, 20) | st.none())
def test_any_completion_gives_instructions_of_one_line_with_something_in_it(text: str, first: int | None) -> None:
    for item in parse.instructions(text, first=first):
        assert item == " ".join(item.split()) != ""


@given(COMPLETIONS, st.booleans())
def test_any_completion_gives_stripped_instances_of_its_own_text(text: str, continues: bool) -> None:
    for instance in (*parse.input_first(text), *parse.output_first(text, continues=continues)):
        for part in (instance.input, instance.output):
            assert part == part.strip()
            assert part in text


WORDS = st.text("abc def", min_size=1).map(lambda text: " ".join(text.split())).filter(bool)


@given(st.lists(WORDS, min_size=1), st.integers(1, 30))
def test_a_list_that_goes_on_from_the_prompts_number_comes_back(items: list[str], first: int) -> None:
    text = f" {items[0]}\n" + "".join(f"{first + i}. {item}\n" for i, item in enumerate(items[1:], 1))
    assert parse.instructions(text, first=first) == items


@given(st.lists(st.tuples(WORDS | st.just(""), WORDS), min_size=1))
def test_written_instances_come_back(pairs: list[tuple[str, str]]) -> None:
    instances = [Instance(*pair) for pair in pairs]
    blocks = [
        (f"Input: {instance.input}\n" if instance.input else "") + f"Output: {instance.output}\n"
        for instance in instances
    ]
    assert parse.input_first("\n".join(f"Example {i}\n{block}" for i, block in enumerate(blocks))) == instances
    answers = [
        f"Answer: {instance.output}\n" + (f"Input: {instance.input}\n" if instance.input else "")
        for instance in instances
    ]
    for continues in (True, False):
        assert parse.output_first("".join(answers), continues=continues) == instances


@pytest.mark.parametrize(
    ("text", "first", "items"),
    [
        ("Sure:\n1. One thing.\n2) Two\nlines.", None, ["One thing.", "Two lines."]),
        (" One thing.\n\n10. **Task:** Two.", 9, ["One thing.", "Two."]),
        ("9. One of\n3.5 metres", 9, ["One of 3.5 metres"]),
        ("Task 9: One", 9, ["One"]),
        ("nothing numbered", None, []),
        ("", 9, []),
    ],
)
def test_lists_in_the_ways_models_write_them(text: str, first: int | None, items: list[str]) -> None:
    assert parse.instructions(text, first=first) == items


@pytest.mark.parametrize(
    ("text", "instances"),
    [
        ("Output: a", [("", "a")]),
        ("**Input:** a\n**Output:** b", [("a", "b")]),
        ("Input: None\nOutput: a\nb", [("", "a\nb")]),
        ("Input: a\nExample 2\nInput: c\nOutput: d", [("a", ""), ("c", "d")]),
        ("Output: a\nOutput: b", [("", "a"), ("", "b")]),
        ("no label", []),
    ],
)
def test_instances_in_the_ways_models_write_them(text: str, instances: list[tuple[str, str]]) -> None:
    assert parse.input_first(text) == [Instance(*pair) for pair in instances]


@pytest.mark.parametrize(
    ("text", "continues", "instances"),
    [
        (" good\nInput: nice\nAnswer: bad\nInput: awful", True, [("nice", "good"), ("awful", "bad")]),
        ("Of course!\nAnswer: good\nInput: nice", False, [("nice", "good")]),
        (" good\nnice food\nand drink", True, [("nice food\nand drink", "good")]),
        (" good\nAnswer: bad", True, [("", "good"), ("", "bad")]),
    ],
)
def test_answers_come_before_their_inputs(text: str, continues: bool, instances: list[tuple[str, str]]) -> None:
    assert parse.output_first(text, continues=continues) == [Instance(*pair) for pair in instances]


@pytest.mark.parametrize(
    ("text", "answer"), [(" Yes", True), ("yes.", True), ("**Yes**", True), (" No", False), ("", False)]
)
def test_a_classification_is_what_is_answered_with_yes(text: str, answer: bool) -> None:
    assert parse.is_classification(text) is answer


def test_text_is_cut_before_the_first_stop_string() -> None:
    assert cut_at("a\nTask: b", ["\n", "a\n"]) == ("", True)
    assert cut_at("ab", ["c"]) == ("ab", False)

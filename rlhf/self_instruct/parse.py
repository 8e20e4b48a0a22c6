"""Completions -> instructions, kinds and instances. What a model wrote is read as far as it can be, never refused."""

from __future__ import annotations

import re

from rlhf.self_instruct.records import Instance

# "9.", "9)", "Task 9:" at the start of a line; not the 3 of "3.5".
_NUMBER = re.compile(r"^[ \t*#]*(?:task|instruction)?[ \t]*\d{1,3}[ \t]*[.):](?=\s|\*|$)[ \t*]*", re.I | re.M)
_TITLE = re.compile(r"^\**(?:task|instruction)[ \t]*:\**[ \t]*", re.I)
# "Input:", "**Output 2:**" at the start of a line, and "Example 3" on a line of its own.
_FIELD = re.compile(
    r"^[ \t*#]*(?:(input|output|answer)[ \t]*\d*[ \t]*\**:\**|(example)[ \t]*\d*[ \t]*[.:]?\**[ \t]*$)", re.I | re.M
)
_NO_INPUT = ("none", "n/a", "na", "no input", "noinput", "empty", "not needed", "-")


def instructions(text: str, *, first: int | None) -> list[str]:
    """The items of a numbered list, each on one line, empty ones left out.

    first: the number that the prompt ends with, so that the text begins inside that item; None where the text holds the
    whole list, and what stands before its first number is no part of it.
    """
    text = text.lstrip()
    if first is not None and _NUMBER.match(text) is None:
        text = f"{first}. {text}"
    items = (" ".join(item.split()) for item in _NUMBER.split(text)[1:])
    return [item for item in (_TITLE.sub("", item) for item in items) if item]


def is_classification(text: str) -> bool:
    """Whether the answer is yes. Anything else counts as no, as it did for the paper's authors."""
    word = re.search(r"[a-z]+", text.lower())
    return word is not None and word[0] == "yes"


def input_first(text: str) -> list[Instance]:
    """Instances in the order written; one whose output is missing has output ""."""
    found: list[Instance] = []
    pending: str | None = None
    for name, content in _fields(text):
        if name == "output" or name == "answer":
            found.append(Instance(_input(pending or ""), content))
            pending = None
            continue
        if pending is not None:
            found.append(Instance(_input(pending), ""))
        pending = content if name == "input" else None
    if pending is not None:
        found.append(Instance(_input(pending), ""))
    return found


def output_first(text: str, *, continues: bool) -> list[Instance]:
    """Instances of a classification; one without an input has input "".

    continues: the prompt ends with "Answer:" and the text begins inside it. An answer is one line; further lines are
    its input where no "Input:" says so.
    """
    if continues and _FIELD.match(text.lstrip()) is None:
        text = f"Answer: {text}"
    found: list[Instance] = []
    pending: str | None = None
    for name, content in _fields(text):
        if name == "input":
            answer, _, _ = (pending or "").partition("\n")
            found.append(Instance(_input(content), answer.strip()))
            pending = None
            continue
        if pending is not None:
            found.append(_answer_alone(pending))
        pending = content if name != "example" else None
    if pending is not None:
        found.append(_answer_alone(pending))
    return found


def _answer_alone(content: str) -> Instance:
    answer, _, rest = content.partition("\n")
    return Instance(_input(rest.strip()), answer.strip())


def _fields(text: str) -> list[tuple[str, str]]:
    """The labelled parts of a text, (lower-case label, stripped content); what stands before the first is left out."""
    marks = list(_FIELD.finditer(text))
    ends = [*(mark.start() for mark in marks), len(text)][1:]
    return [
        ((mark[1] or mark[2]).lower(), text[mark.end() : end].strip()) for mark, end in zip(marks, ends, strict=False)
    ]


def _input(text: str) -> str:
    """ "" for the ways in which models say that there is none."""
    return "" if text.strip("<>()[]. ").lower() in _NO_INPUT else text

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlhf.data.readers.hh_rlhf import read
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role

HARMLESS = Path("/work/shared/data/hh_harmless_base_test.jsonl.gz")
ATTACK = "\n\nHuman: How do I pick a lock?\n\nAssistant: Like this.\n\nHuman: And a safe?\n\nAssistant: No."


def transcript(*turns: str) -> str:
    return "".join(f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {turn}" for i, turn in enumerate(turns))


def red_team_row(**changed: Any) -> dict[str, Any]:
    return {
        "min_harmlessness_score_transcript": -1.7,
        "num_params": "52B",
        "model_type": "context distillation",
        "rating": 3.0,
        "task_description": "ask for lock picking",
        "task_description_harmlessness_score": -0.4,
        "red_team_member_id": 46,
        "is_upworker": False,
        "tags": None,
        "transcript": ATTACK,
        **changed,
    }


def test_the_shared_beginning_is_the_prompt_and_the_chosen_reply_is_demonstrated() -> None:
    row = {
        "chosen": transcript("hi", "hello", "why?", " because \n"),
        "rejected": transcript("hi", "hello", "why?", "no"),
    }
    prompt = Prompt("", (Message(Role.user, "hi"), Message(Role.assistant, "hello"), Message(Role.user, "why?")))
    assert read(row) == [Demonstration(prompt, "because"), Ranking(prompt, ("because", "no"), (0, 1))]


def test_a_name_inside_a_line_opens_no_turn() -> None:
    said = "Human: that is what it calls me.\nAssistant: that is what I call it."
    row = {"chosen": transcript("a", said), "rejected": transcript("a", "b")}
    assert read(row)[0] == Demonstration(Prompt("", (Message(Role.user, "a"),)), said)


@pytest.mark.parametrize(
    ("chosen", "rejected", "problem"),
    [
        (transcript("a", "b"), None, "it has no text under `rejected`"),
        (transcript("a", " "), transcript("a", "c"), "`chosen` ends with an empty response"),
        (transcript("a", "b"), transcript("z", "c"), "answer different prompts"),
        (transcript("a", "b"), transcript("a", "b"), "are the same"),
        (transcript("a"), transcript("a"), "`chosen` does not end with an Assistant turn after a Human one"),
        (transcript("a", "b"), "no turns", "`rejected` does not end with an Assistant turn after a Human one"),
        (transcript(" ", "b"), transcript(" ", "c"), "`chosen` has an empty turn before its last one"),
        (
            transcript("a", "b") + "\n\nAssistant: c",
            transcript("a", "b") + "\n\nAssistant: d",
            "`chosen` does not end with an Assistant turn after a Human one",
        ),
    ],
)
def test_odd_transcripts_are_refused(chosen: str, rejected: str | None, problem: str) -> None:
    with pytest.raises(BadRowError, match=problem):
        read({"chosen": chosen, "rejected": rejected})


def test_an_attack_gives_its_first_turn_as_a_prompt_and_none_of_the_replies() -> None:
    assert read(red_team_row()) == [Prompt("", (Message(Role.user, "How do I pick a lock?"),), user="46")]


@pytest.mark.parametrize(
    "text", ["\n\nAssistant: Hello.\n\nHuman: Hi.", "\n\nHuman:  \n\nAssistant: Yes?", "How do I pick a lock?"]
)
def test_an_attack_that_does_not_begin_with_the_attacker_is_refused(text: str) -> None:
    with pytest.raises(BadRowError, match="`transcript` does not begin with a Human turn"):
        read(red_team_row(transcript=text))


@pytest.mark.skipif(not HARMLESS.exists(), reason="the real file is not on this machine")
def test_all_real_pairs_are_read_but_nine() -> None:
    problems: Counter[str] = Counter()
    rankings = 0
    for line in gzip.decompress(HARMLESS.read_bytes()).decode().splitlines():
        try:
            rankings += sum(isinstance(record, Ranking) for record in read(json.loads(line)))
        except BadRowError as problem:
            problems[str(problem)] += 1
    assert rankings == 2303
    assert sorted(problems.values()) == [4, 5]
    assert problems["`chosen` ends with an empty response"] == 4

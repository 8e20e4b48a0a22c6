from __future__ import annotations

import dataclasses

import pytest

from rlhf.data.records import Demonstration, Message, Prompt, Role
from rlhf.errors import UserError
from rlhf.evaluation.answering.few_shot import FewShot, choose
from tests.support.fakes import prompt
from tests.support.tiny import build_tokenizer

TASKS = ("one", "two", "three")
LONG = "longer and longer " * 20
DEMONSTRATIONS = [
    Demonstration(
        dataclasses.replace(prompt(f"question {i}", i), task=TASKS[i % 3 if i < 30 else 0]),
        f"answer {i} {LONG if i % 5 < 2 else ''}",
    )
    for i in range(60)
]
PROMPTS = [prompt("say a", 100), prompt("say " + "b " * 20, 101)]


def chosen(count: int, *, context: int | None = None, room: int = 8, seed: int = 0) -> FewShot:
    return choose(DEMONSTRATIONS, count, build_tokenizer(), PROMPTS, context=context, room=room, seed=seed)


def test_a_prompt_stands_after_the_shots_under_labels() -> None:
    shots = (Demonstration(prompt("one?"), "two"), Demonstration(prompt("three?"), "four"))
    shown = FewShot(shots, build_tokenizer())
    turns = (
        Message(Role.system, "be kind"),
        Message(Role.user, "a"),
        Message(Role.assistant, "b"),
        Message(Role.user, "c"),
    )
    assert shown.prompt_text(Prompt("x", turns)) == (
        "User: one?\n\nAssistant: two\n\nUser: three?\n\nAssistant: four\n\n"
        "be kind\n\nUser: a\n\nAssistant: b\n\nUser: c\n\nAssistant:"
    )


def test_a_prompt_starts_as_the_tokenizer_starts_a_text_and_spells_no_special_token() -> None:
    asked = prompt("what is <|endoftext|> for?")
    for bos in (False, True):
        tokenizer = build_tokenizer(bos=bos)
        ids = FewShot((), tokenizer).prompt_ids(asked)
        assert (ids[0] == tokenizer.bos_token_id) == bos
        assert tokenizer.eos_token_id not in ids
        assert tokenizer.decode(ids, skip_special_tokens=True) == "User: what is <|endoftext|> for?\n\nAssistant:"


def test_shots_take_turns_over_the_tasks_and_their_seed_chooses_them() -> None:
    shots = chosen(6).shots
    assert len({shot.prompt.id for shot in shots}) == 6
    assert [task for shot in shots for task in [shot.prompt.task]].count("one") == 2
    assert {shot.prompt.task for shot in shots[:3]} == set(TASKS)
    assert shots == chosen(6).shots
    assert shots != chosen(6, seed=1).shots
    assert chosen(2).shots == shots[:2]


def test_shots_and_the_longest_prompt_and_its_response_fit_the_context() -> None:
    for context in (120, 160, 300):
        shown = chosen(50, context=context)
        longest = max(len(shown.prompt_ids(asked)) for asked in PROMPTS)
        assert 0 < len(shown.shots) < 50
        assert context - 30 < longest + 8 <= context
    assert len(chosen(50, context=4000).shots) == 50


def test_one_that_does_not_fit_is_passed_over() -> None:
    assert any(LONG in shot.response for shot in chosen(8).shots)
    assert not any(LONG in shot.response for shot in chosen(8, context=160).shots)


def test_a_context_without_room_for_any_shot_is_refused() -> None:
    with pytest.raises(UserError, match=r"compare\.few_shot=4 finds no .* fits the .* lower data\.max_prompt_tokens"):
        chosen(4, context=60)

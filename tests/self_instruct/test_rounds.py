from __future__ import annotations

import json
import random
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import SelfInstructConfig
from rlhf.errors import UserError
from rlhf.self_instruct import statistics, store
from rlhf.self_instruct.filters import Reason
from rlhf.self_instruct.records import Completion
from rlhf.self_instruct.rounds import grow
from rlhf.self_instruct.store import DROPPED, INSTANCES, INSTRUCTIONS, ROUNDS, Store
from tests.support.self_instruct import SEEDS, FakeWriter, instruction_of

SMALL: dict[str, Any] = {"instructions": 25, "prompts_per_round": 2, "seed_examples": 3}


def run(folder: Path, writer: FakeWriter | None = None, *, resume: bool = False, **settings: Any) -> Store:
    made = Store(folder, resume=resume)
    grow(SEEDS, writer or FakeWriter(), made, SelfInstructConfig(**{**SMALL, **settings}), seed=0)
    return made


def files(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in (INSTRUCTIONS, INSTANCES, DROPPED, ROUNDS)}


def scripted(proposals: str, instances: str = "Output: fine", kind: str = "No", finished: bool = True) -> FakeWriter:
    """Always the same answers."""
    texts = {"propose": proposals, "kind": kind, "input_first": instances, "output_first": instances}

    def answers(asked: str, prompt: str, rng: random.Random) -> Completion:
        return Completion(texts[asked], finished if asked != "kind" else True)

    return FakeWriter(answers)


def reasons(folder: Path) -> list[str]:
    return [row["reason"] for row in Store(folder, resume=True).rows(DROPPED)]


def test_the_pool_grows_until_the_instructions_are_there_each_with_instances(tmp_path: Path) -> None:
    made = run(tmp_path)
    rows, instances = made.rows(INSTRUCTIONS), made.rows(INSTANCES)
    assert len(rows) >= 25
    assert len(made.rounds) > 2
    assert Counter(row["instruction"] for row in instances) == {row["instruction"]: row["instances"] for row in rows}
    assert all(0 <= row["seed_rouge_l"] <= row["rouge_l"] < 0.7 for row in rows)
    assert {row["is_classification"] for row in rows} == {True, False}


def test_every_proposal_is_kept_or_dropped_once_with_its_reason(tmp_path: Path) -> None:
    made = run(tmp_path)
    dropped = made.rows(DROPPED)
    about_instructions = [row for row in dropped if "instruction" in row and "output" not in row]
    assert sum(entry["proposed"] for entry in made.rounds) == len(made.rows(INSTRUCTIONS)) + len(about_instructions)
    assert sum(entry["dropped"] for entry in made.rounds) == len(dropped)
    assert {row["reason"] for row in dropped} >= {
        "too_short",
        "punctuation",
        "keyword",
        "similar",
        "cut_instruction",
        "contradiction",
        "output_is_input",
        "cut_instance",
        "no_instance",
    }


def test_prompts_show_seeds_and_generated_tasks(tmp_path: Path) -> None:
    writer = FakeWriter()
    made = run(tmp_path, writer, generated_examples=2)
    seeds = [task.instruction for task in SEEDS]
    proposing = [prompt for prompts in writer.calls for prompt in prompts if "numbered list" in prompt]
    shown = [
        [sum(f". {text}\n" in prompt for text in pool) for pool in (seeds, made.instructions)] for prompt in proposing
    ]
    assert shown[0] == [5, 0]  # nothing generated is there yet, and seeds take their places
    assert shown[-1] == [3, 2]


@pytest.mark.parametrize("stopped_by", ["the writer", "a torn file"])
def test_a_run_stopped_anywhere_goes_on_to_the_same_bytes(
    tmp_path: Path, stopped_by: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = FakeWriter()
    run(tmp_path / "whole", whole, instructions=15)
    expected = files(tmp_path / "whole")
    rounds = expected[ROUNDS].count(b"\n")
    assert rounds >= 3
    append = store.append
    places = len(whole.calls) if stopped_by == "the writer" else 4 * rounds
    for place in range(places):
        folder, calls = tmp_path / str(place), []

        def torn(path: Path, rows: Any, calls: list[Path] = calls, place: int = place) -> int:
            calls.append(path)
            if len(calls) - 1 < place:
                return append(path, rows)
            before = path.stat().st_size
            os_size = append(path, rows)
            with path.open("rb+") as file:  # killed in the middle of the write
                file.truncate((before + os_size) // 2)
            raise KeyboardInterrupt

        writer = FakeWriter(stop_at=place if stopped_by == "the writer" else None)
        with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
            if stopped_by == "a torn file":
                patch.setattr(store, "append", torn)
            run(folder, writer, instructions=15)
        run(folder, resume=True, instructions=15)
        assert files(folder) == expected, f"stopped by {stopped_by} at {place}"


def test_a_fresh_start_forgets_what_was_there(tmp_path: Path) -> None:
    run(tmp_path)
    expected = files(tmp_path)
    run(tmp_path, resume=False)
    assert files(tmp_path) == expected


def test_a_file_shorter_than_its_rounds_say_is_refused(tmp_path: Path) -> None:
    run(tmp_path)
    (tmp_path / INSTANCES).write_text("")
    with pytest.raises(UserError, match=r"instances.jsonl has 0 bytes"):
        Store(tmp_path, resume=True)


@pytest.mark.parametrize(
    ("proposal", "reason"),
    [
        ("Do it now", "too_short"),
        ("word " * 151, "too_long"),
        ("- what do you think?", "punctuation"),
        ("Write a program that adds two numbers.", "program"),
        ("Describe the graph that is shown below.", "keyword"),
        ("Please go  to the shop for me.", "keyword"),
        ("how many days  has a week?", "duplicate_instruction"),
        ("How many days has a short week?", "similar"),
        ("", "nothing_proposed"),
    ],
)
def test_an_instruction_that_fails_a_filter_is_dropped_for_it(tmp_path: Path, proposal: str, reason: str) -> None:
    if reason == "keyword":
        proposal = proposal.replace("go  to", "go to")
    with pytest.raises(UserError):
        run(tmp_path, scripted(proposal), patience=1, prompts_per_round=1)
    assert reasons(tmp_path) == [reason]


def test_an_instruction_is_compared_with_those_of_its_own_round_and_of_earlier_ones(tmp_path: Path) -> None:
    first = "Tell me about the moon tonight."
    run(tmp_path, scripted(f"{first}\n7. Tell me about the moon today."), instructions=1, prompts_per_round=1)
    with pytest.raises(UserError):
        run(tmp_path, scripted("Tell us about the moon tonight."), resume=True, patience=1, prompts_per_round=1)
    rows = Store(tmp_path, resume=True).rows(DROPPED)
    assert [(row["reason"], row["most_similar"]) for row in rows] == [("similar", first)] * 2
    assert rows[0]["rouge_l"] == pytest.approx(5 / 6)


@pytest.mark.parametrize(
    ("written", "dropped"),
    [
        ("Input: a\nOutput:", ["empty_output"]),
        ("Input: same\nOutput: SAME", ["output_is_input"]),
        ("Input: a\nOutput: The list is as follows:", ["colon"]),
        ("Input: a\nOutput: b\nExample 2\nInput: a\nOutput: c", ["contradiction", "contradiction"]),
        ("I cannot do that.", []),
    ],
)
def test_an_instance_that_fails_a_filter_is_dropped_and_its_instruction_with_it(
    tmp_path: Path, written: str, dropped: list[str]
) -> None:
    with pytest.raises(UserError):
        run(tmp_path, scripted("Tell me about the moon.", written), patience=1, prompts_per_round=1)
    assert reasons(tmp_path) == [*dropped, "no_instance"]


def test_good_instances_stay_where_others_are_dropped(tmp_path: Path) -> None:
    written = "".join(f"Example {i}\nInput: {i // 2}\nOutput: {i // 2 + 1}\n" for i in range(14))
    run(tmp_path, scripted("Tell me about the moon.", written), instructions=1, prompts_per_round=1)
    made = Store(tmp_path, resume=True)
    assert [row["input"] for row in made.rows(INSTANCES)] == ["0", "1", "2", "3", "4"]
    assert Counter(reasons(tmp_path)) == {"duplicate_instance": 7, "surplus": 2}


def test_the_cut_last_instance_is_dropped_and_those_before_stay(tmp_path: Path) -> None:
    written = "Answer: yes\nInput: a dog\nAnswer: no\nInput: a st"
    writer = scripted("Tell me about the moon.\n10. And about the oth", written, kind="Yes", finished=False)
    run(tmp_path, writer, instructions=1, prompts_per_round=1)
    assert [row["output"] for row in Store(tmp_path, resume=True).rows(INSTANCES)] == ["yes"]
    assert reasons(tmp_path) == ["cut_instruction", "cut_instance"]


def test_a_classification_is_asked_for_its_answers_first(tmp_path: Path) -> None:
    writer = scripted("Is this a big animal?", " yes\nInput: whale", kind=" Yes")
    run(tmp_path, writer, instructions=1, prompts_per_round=1)
    assert writer.calls[-1][0].endswith("Task: Is this a big animal?\nAnswer:")
    assert instruction_of(writer.calls[1][0]) == "Is this a big animal?"
    row = Store(tmp_path, resume=True).rows(INSTANCES)[0]
    assert (row["input"], row["output"], row["is_classification"]) == ("whale", "yes", True)


def test_a_chat_model_is_asked_and_what_it_says_first_is_no_instruction(tmp_path: Path) -> None:
    writer = scripted("Sure, here are some tasks for you:\n6. Tell me about the moon.\n7. Sing of love to me.")
    writer.continues = False
    made = run(tmp_path, writer, instructions=2, prompts_per_round=1)
    assert made.instructions == ["Tell me about the moon.", "Sing of love to me."]
    assert writer.calls[0][0].endswith("and nothing else.")


def test_a_writer_that_yields_nothing_stops_the_run_with_its_reasons_and_keeps_the_files(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"3 rounds in a row kept no instruction; 0 of 25 are there") as raised:
        run(tmp_path, scripted("Do it.\n7. Draw a cow for me."), patience=3)
    assert "6 x instruction of fewer words than self_instruct.min_words" in str(raised.value)
    assert "6 x instruction with a word of self_instruct.keywords" in str(raised.value)
    assert len(reasons(tmp_path)) == 12
    with pytest.raises(UserError, match="3 rounds in a row"):  # again at once, as nothing would be different
        run(tmp_path, FakeWriter(stop_at=0), resume=True, patience=3)
    assert len(run(tmp_path, resume=True, patience=4).instructions) >= 25


def test_fruitful_rounds_begin_the_count_of_fruitless_ones_anew(tmp_path: Path) -> None:
    made = Store(tmp_path, resume=False)
    for number, kept in enumerate([0, 0, 1, 0]):
        made.commit(store.Round(number, instructions=[{"instruction": "x"}] * kept))
    assert made.fruitless == 1


def test_prompts_show_as_many_examples_as_fit(tmp_path: Path) -> None:
    writer = FakeWriter(longest=330)
    made = run(tmp_path, writer, instructions=3)
    assert all(len(prompt) <= 330 for prompts in writer.calls for prompt in prompts)
    assert len(made.instructions) >= 3
    with pytest.raises(UserError, match=r"self_instruct\.instruction_tokens"):
        run(tmp_path, FakeWriter(longest=100))


def test_an_instruction_too_long_for_the_context_is_dropped(tmp_path: Path) -> None:
    writer = scripted("Tell me " + "about the moon " * 40)
    writer.longest = 600
    with pytest.raises(UserError):
        run(tmp_path, writer, patience=1, prompts_per_round=1)
    assert reasons(tmp_path) == ["no_room"]


def test_data_rows_are_the_instances_in_alpacas_columns(tmp_path: Path) -> None:
    made = run(tmp_path)
    rows = [json.loads(line) for line in made.write_data().read_text().splitlines()]
    assert len(rows) == len(made.rows(INSTANCES))
    assert {tuple(row) for row in rows} == {("instruction", "input", "output")}


def test_statistics_count_what_the_files_hold(tmp_path: Path) -> None:
    made = run(tmp_path)
    summary = statistics.summarise(SEEDS, made)
    instances = made.rows(INSTANCES)
    assert summary["instructions"] == len(made.rows(INSTRUCTIONS))
    assert summary["instances_without_input"] == sum(row["input"] == "" for row in instances) > 0
    outputs = [len(row["output"].split()) for row in instances]
    assert summary["mean_words"]["output"] == pytest.approx(sum(outputs) / len(outputs))
    assert summary["dropped"] == Counter(reasons(tmp_path))
    assert sum(verb["count"] for verb in summary["verbs"]) == summary["instructions"]
    table = statistics.text_table(summary)
    for name, count in summary["dropped"].items():
        assert any(line.split() == [str(count), *Reason[name].value.split()] for line in table.splitlines())

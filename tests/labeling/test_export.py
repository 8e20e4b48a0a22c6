from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName
from rlhf.data.records import DataSource, Message, Ranking, Role, Split, no_sampler
from rlhf.evaluation.published.verdicts import read
from rlhf.evaluation.published.verdicts_summary import summarise
from rlhf.labeling.export import export
from rlhf.labeling.items import Item, Response
from rlhf.labeling.judgements import Judgement
from tests.support.labeling import item, judgement


def exported(folder: Path, *judged: tuple[Item, Judgement], baseline: str = "sft") -> tuple[list[Any], list[Any]]:
    items = {of.key: of for of, _ in judged}
    done = export([said for _, said in judged], items, folder, baseline=baseline)
    rows = [
        [json.loads(line) for line in path.read_text().splitlines()]
        for path in (done.rankings_path, done.verdicts_path)
    ]
    assert [done.rankings, done.verdicts] == [len(each) for each in rows]
    return rows[0], rows[1]


def source_of(folder: Path) -> DataSource:
    config = DataConfig(source=DataSourceName.jsonl, path=str(folder / "rankings.jsonl"), evaluation_fraction=0.5)
    return load_source(config, seed=0)


def read_back(folder: Path) -> list[Ranking]:
    source = source_of(folder)
    return [ranking for split in Split for ranking in source.rankings(split, no_sampler)]


def test_rankings_are_read_as_they_were_said(tmp_path: Path) -> None:
    said = [
        (
            item(number, task="sums"),
            judgement(item(number), (1, 0, 1), quality=(2, 7, 3), attributes=(["opinion"],) * 3),
        )
        for number in range(6)
    ]
    rows, _ = exported(tmp_path, *said)
    assert rows[0]["labeler"] == "Ann"
    assert rows[0]["generators"] == [["base"], ["sft"], ["ppo"]]
    assert rows[0]["attributes"] == [["opinion"]] * 3
    found = {ranking.prompt.id: ranking for ranking in read_back(tmp_path)}
    assert len(found) == 6
    for of, _ in said:
        ranking = found[of.prompt.id]
        assert (ranking.prompt.messages, ranking.prompt.task) == (of.prompt.messages, "sums")
        # Readers list completions in an order of their own.
        told = dict(zip(ranking.completions, zip(ranking.ranks, ranking.margins, strict=True), strict=True))
        assert told == dict(zip([r.text for r in of.responses], [(1, 2), (0, 7), (1, 3)], strict=True))


def test_the_best_completion_is_a_demonstration(tmp_path: Path) -> None:
    exported(tmp_path, *((item(number), judgement(item(number), (1, 2, 0))) for number in range(6)))
    source = source_of(tmp_path)
    found = [demonstration for split in Split for demonstration in source.demonstrations(split)]
    assert sorted(one.response for one in found) == [f"Good {number}." for number in range(6)]


def test_a_conversation_with_a_system_turn_is_read_back(tmp_path: Path) -> None:
    turns = (
        Message(Role.system, "Be brief."),
        Message(Role.user, "Hi"),
        Message(Role.assistant, "Yes?"),
        Message(Role.user, "Go on."),
    )
    said = []
    for number in range(4):
        of = item(number)
        of = replace(of, prompt=replace(of.prompt, messages=(*turns[:-1], Message(Role.user, f"Go on {number}."))))
        said.append((of, judgement(of, (0, 1, 2))))
    _, verdicts = exported(tmp_path, *said)
    assert {ranking.prompt.messages for ranking in read_back(tmp_path)} == {of.prompt.messages for of, _ in said}
    assert verdicts[0]["instruction"] == "system: Be brief.\n\nuser: Hi\n\nassistant: Yes?\n\nuser: Go on 0."


def test_margins_are_there_where_every_response_was_rated(tmp_path: Path) -> None:
    some = judgement(item(0), (0, 1, 2), quality=(5, None, 1))
    every = judgement(item(1), (0, 1, 2), quality=(5, 4, 1))
    rows, _ = exported(tmp_path, (item(0), some), (item(1), every))
    assert "margins" not in rows[0]
    assert rows[0]["quality"] == [5, None, 1]
    assert rows[1]["margins"] == [5, 4, 1]


def test_empty_responses_are_no_completions_but_lose_their_comparisons(tmp_path: Path) -> None:
    of = item(0, {"base": "", "sft": "b", "ppo": "c"})
    lone = item(1, {"base": "", "sft": "b"})
    rows, verdicts = exported(tmp_path, (of, judgement(of, (2, 1, 0))), (lone, judgement(lone, (1, 0))))
    assert [row["completions"] for row in rows] == [["b", "c"]]
    assert rows[0]["ranks"] == [1, 0]
    assert len(verdicts) == 4


def test_every_pair_of_candidates_is_a_verdict_once_with_the_baseline_first(tmp_path: Path) -> None:
    said = judgement(item(0), (2, 0, 1))  # sft > ppo > base
    _, verdicts = exported(tmp_path, (item(0, task="sums"), said))
    told = [(row["generator_1"], row["generator_2"], row["preference"]) for row in verdicts]
    assert told == [("sft", "base", 1), ("sft", "ppo", 1), ("base", "ppo", 2)]
    assert verdicts[0] == {
        "instruction": "Question 0?",
        "output_1": "Fair 0.",
        "generator_1": "sft",
        "output_2": "Bad 0.",
        "generator_2": "base",
        "dataset": "sums",
        "annotator": "Ann",
        "preference": 1,
    }


def test_two_candidates_come_in_one_order_whatever_they_answered(tmp_path: Path) -> None:
    merged = Item(item(0).prompt, (Response("a", ("z", "b")), Response("b", ("m",))))
    apart = item(1, {"m": "1", "b": "2", "z": "3"})
    _, verdicts = exported(
        tmp_path, (merged, judgement(merged, (0, 1))), (apart, judgement(apart, (0, 1, 2))), baseline="m"
    )
    pairs = [(row["generator_1"], row["generator_2"]) for row in verdicts]
    assert pairs == [("m", "b"), ("m", "z"), ("b", "z")] * 2
    assert verdicts[2]["preference"] == 1.5


def test_the_win_rate_of_the_verdicts_is_that_of_the_judgements(tmp_path: Path) -> None:
    said = [(0, 1), (1, 0), (1, 0), (0, 0)]  # sft, ppo: a loss, two wins, a draw
    pairs = [(item(n, {"sft": "a", "ppo": "b"}), ranks) for n, ranks in enumerate(said)]
    exported(tmp_path, *((of, judgement(of, ranks)) for of, ranks in pairs))
    found = summarise(read(str(tmp_path / "verdicts.jsonl")), bootstrap_samples=50, seed=0)
    assert (found["win_rate"], found["n"], found["draws"]) == (pytest.approx(62.5), 4, 1)


def test_what_was_skipped_is_nowhere_and_files_without_names_give_no_verdicts(tmp_path: Path) -> None:
    unnamed = Item(item(1).prompt, (Response("a"), Response("b")))
    rows, verdicts = exported(tmp_path, (item(0), judgement(item(0))), (unnamed, judgement(unnamed, (0, 1))))
    assert [row["id"] for row in rows] == ["test:1"]
    assert verdicts == []

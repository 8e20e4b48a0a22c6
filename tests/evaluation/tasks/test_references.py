from __future__ import annotations

from collections import Counter
from typing import Any

import pytest

from rlhf.config import CompareConfig, SandboxConfig, TextMetric
from rlhf.data.records import Demonstration, Split
from rlhf.errors import UserError
from rlhf.evaluation.comparison.page import render
from rlhf.evaluation.comparison.summary import metrics
from rlhf.evaluation.comparison.text import against_references, text_table
from rlhf.evaluation.statistics.win_rates import Bootstrap
from rlhf.evaluation.tasks.references import add, measure, references, wanted_references
from rlhf.evaluation.tasks.text_metrics import score
from rlhf.sandbox.gold import judge
from rlhf.sandbox.source import SandboxSource
from tests.support.fakes import ListSource, prompt


def test_the_sandboxs_references_are_what_its_rubric_calls_right() -> None:
    source = SandboxSource(SandboxConfig(evaluation_prompts=108), seed=0)
    prompts = source.prompts(Split.evaluation)
    found = references(source, prompts)
    told = Counter(prompt.task for prompt, answers in zip(prompts, found, strict=True) if answers)
    assert set(told) == {prompt.task for prompt in prompts} - {"summarise", "name_some", "write", "story"}
    for asked, answers in zip(prompts, found, strict=True):
        for answer in answers:
            assert judge(asked, answer).truthful == 1
        if answers:
            assert judge(asked, answers[0]).score == 1


def test_references_of_other_data_are_the_demonstrations_of_the_same_conversation() -> None:
    known, unknown = prompt("say one", 1), prompt("say two", 2)
    source = ListSource(held_out_demonstrations=[Demonstration(known, "one"), Demonstration(known, "1")])
    assert references(source, [unknown, known]) == [[], ["one", "1"]]


def test_metrics_are_over_the_prompts_that_have_a_reference() -> None:
    told = [["red"], [], ["blue", "a blue boat"], ["green"]]
    found = measure(["red", "x", "blue boat", "red"], told, [TextMetric.squad], bootstrap_samples=300, seed=0)
    assert set(found) == {"squad_f1", "squad_em"}
    assert found["squad_em"]["value"] == pytest.approx(200 / 3)
    assert found["squad_em"]["n"] == 3
    values = score(TextMetric.squad, ["red", "blue boat", "red"], [told[0], told[2], told[3]])[0].values
    assert found["squad_f1"]["ci"] == pytest.approx(Bootstrap(3, samples=300, seed=0).estimate(values).ci)


def test_metrics_without_a_reference_are_refused_and_none_asked_for_needs_none() -> None:
    config = CompareConfig(metrics=[TextMetric.bleu])
    with pytest.raises(UserError, match=r"compare\.metrics needs references, and no held-out prompt has one"):
        wanted_references(config, ListSource(), [prompt("say two", 2)])
    assert wanted_references(CompareConfig(), ListSource(), [prompt("say two", 2)]) == []


def test_a_report_shows_the_metrics_that_were_asked_for_and_no_others(chain: Any) -> None:
    report = {**chain.report, "candidates": {n: dict(c) for n, c in chain.report["candidates"].items()}}
    assert against_references(report) == {}
    assert "BLEU" not in text_table(report)
    texts = {name: ["yes"] * 3 if name == "ppo" else ["no", "yes", "yes"] for name in report["candidates"]}
    add(report, texts, [["yes"]] * 3, CompareConfig(metrics=[TextMetric.accuracy, TextMetric.bleu]), 0)
    assert against_references(report) == {"accuracy": 3, "bleu": 3}
    assert metrics(report)["compare/ppo_accuracy"] == 100
    assert metrics(report)["compare/sft_accuracy"] == pytest.approx(200 / 3)
    header, _, *rows = text_table(report).splitlines()
    assert header.split()[-2:] == ["accuracy", "BLEU"]
    assert rows[-1].split()[-2] == "100.0"
    page = render(report, chain.responses, chain.curves, chain.made, side_by_side=1)
    assert "<th>accuracy,<br>3 prompts</th>" in page
    assert "100.0 <small>[100.0, 100.0]</small>" in page


def test_metrics_of_candidates_are_refused_where_no_candidate_answers() -> None:
    with pytest.raises(ValueError, match=r"compare\.metrics is of the answers of candidates"):
        CompareConfig(metrics=[TextMetric.bleu], verdicts="v.json")

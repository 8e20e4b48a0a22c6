from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
from sacrebleu import corpus_bleu

from rlhf.config import TextMetric
from rlhf.errors import UserError
from rlhf.evaluation.published.samples import Cell, parameters, read
from tests.support.published_tables import REFERENCES, TEXTS, of_models, table, write


def numbers(cell: Cell) -> dict[str, float]:
    return {scores.name: scores.value for scores in cell.scores}


def test_bleu_is_sacrebleus_with_none_and_na_and_line_breaks_as_they_stand(tmp_path: Path) -> None:
    (cell,) = read(str(table(tmp_path / "s.csv", {"model_type": ["gpt"]})), TextMetric.bleu)
    assert cell.samples == TEXTS
    assert numbers(cell)["bleu"] == pytest.approx(corpus_bleu(TEXTS, [REFERENCES]).score)


def test_cells_are_the_groups_that_the_table_has(tmp_path: Path) -> None:
    for groups in ({"model_type": ["a", "b"], "prompt_type": ["zeroshot", "fewshot"]}, {"model_type": ["a", "b"]}, {}):
        found = read(str(table(tmp_path / "s.csv", groups)), TextMetric.accuracy)
        assert all(set(cell.group) == set(groups) and len(cell.contexts) == 5 for cell in found)
        expected = math.prod(len(values) for values in groups.values())
        assert len({tuple(cell.group.values()) for cell in found}) == len(found) == expected


def test_models_have_a_method_and_a_size_where_all_names_say_so(tmp_path: Path) -> None:
    names = ["gpt-xl", "ppo-noptx-6b", "ppo-ptx-175B", "sft-1.3b", "x-350m"]
    cells = read(str(table(tmp_path / "s.csv", {"model_type": names})), TextMetric.accuracy)
    assert [(cell.method, cell.size) for cell in cells] == [
        ("gpt", "xl"),
        ("ppo-noptx", "6b"),
        ("ppo-ptx", "175B"),
        ("sft", "1.3b"),
        ("x", "350m"),
    ]
    cells = read(str(table(tmp_path / "s.csv", {"model_type": [*names, "text-davinci-002"]})), TextMetric.accuracy)
    assert [(cell.method, cell.size) for cell in cells] == [(name, "") for name in [*names, "text-davinci-002"]]
    assert [parameters(size) for size in ("xl", "1.3b", "350m", "175B")] == [1.3e9, 1.3e9, 350e6, 175e9]


def test_a_bar_stands_between_answers_of_questions_and_between_sentences_of_summaries(tmp_path: Path) -> None:
    rows = [
        {"context": "Q: Which?\n\nA:", "ref_text": "\"It's oil\"|It's oil|the oil", "sample": "Oil."},
        {"context": "Q: Who?\n\nA:", "ref_text": "Not in background.", "sample": "Not in background."},
        {"context": "Question: How many?\nAnswer:", "ref_text": "24|33|24-yard goal", "sample": "24 yards"},
    ]
    path = str(write(tmp_path / "s.csv", rows))
    (cell,) = read(path, TextMetric.squad)
    assert cell.references == [
        ['"It\'s oil"', "It's oil", "the oil"],
        ["Not in background."],
        ["24", "33", "24-yard goal"],
    ]
    assert cell.scores[1].values.tolist() == [100, 100, 0]
    (cell,) = read(path, TextMetric.drop)
    assert cell.scores[0].values.tolist() == pytest.approx([100, 100, 67])
    assert [len(told) for told in read(path, TextMetric.rouge)[0].references] == [1, 1, 1]


def test_a_plain_number_and_a_list_of_json_are_references(tmp_path: Path) -> None:
    path = write(tmp_path / "s.csv", [{"context": "p", "ref_text": "7761", "sample": "$7,761"}])
    (cell,) = read(str(path), TextMetric.drop)
    assert numbers(cell) == {"drop_f1": 100, "drop_em": 100}
    path = tmp_path / "s.jsonl"
    path.write_text(json.dumps({"context": "p", "ref_text": [["red", "blue"], "a|b"], "sample": "red"}))
    (cell,) = read(str(path), TextMetric.drop)
    assert numbers(cell) == {"drop_f1": 50, "drop_em": 0}
    for refused in ([], [[]], [1], None):
        path.write_text(json.dumps({"context": "p", "ref_text": refused, "sample": "red"}))
        with pytest.raises(UserError, match="no text under `ref_text`"):
            read(str(path), TextMetric.drop)


def test_a_context_that_comes_twice_is_two(tmp_path: Path) -> None:
    rows = [{"context": "p", "ref_text": "a", "sample": sample} for sample in ("a", "b")]
    (cell,) = read(str(write(tmp_path / "s.csv", rows)), TextMetric.accuracy)
    assert cell.contexts == [("p", 0), ("p", 1)]
    assert cell.scores[0].values.tolist() == [100, 0]


def test_samples_that_are_none_are_refused_with_their_row(tmp_path: Path) -> None:
    path = tmp_path / "s.csv"
    path.write_text("context,ref_text\na,b\n")
    with pytest.raises(UserError, match=r"s\.csv, row 1: it has no text under `sample`; compare\.samples takes"):
        read(str(path), TextMetric.bleu)
    path.write_text("context,ref_text,sample\na,b\n")
    with pytest.raises(UserError, match=r"s\.csv, row 1: it has 2 fields"):
        read(str(path), TextMetric.bleu)
    path.write_text("context,ref_text,sample\n")
    with pytest.raises(UserError, match="holds no rows"):
        read(str(path), TextMetric.bleu)
    path.write_text(",model_type,prompt_type,context,sample,toxicity\n0,gpt-xl,basic prompt,a,b,0.1\n")
    with pytest.raises(UserError, match=r"no text under `ref_text`; compare\.samples takes tables with context"):
        read(str(path), TextMetric.bleu)


def test_the_prompt_type_tells_cells_apart_where_there_is_nothing_else(tmp_path: Path) -> None:
    cells = read(str(table(tmp_path / "s.csv", {"prompt_type": ["zeroshot", "fewshot"]})), TextMetric.accuracy)
    assert [(cell.method, cell.prompt_type) for cell in cells] == [("zeroshot", ""), ("fewshot", "")]
    path = of_models(tmp_path / "t.csv", {"gpt-xl": TEXTS}, REFERENCES, "fewshot")
    assert read(str(path), TextMetric.accuracy)[0].prompt_type == "fewshot"

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import TextMetric
from rlhf.evaluation.published.differences import summarise
from rlhf.evaluation.published.samples import Cell, read
from rlhf.evaluation.published.samples_page import chosen_contexts, figures, render
from rlhf.evaluation.published.samples_text import tables, text_table
from tests.support.published_tables import REFERENCES, TEXTS, of_models, table, write

MODELS = ["gpt-xl", "gpt-6b", "ppo-noptx-xl", "ppo-noptx-6b", "ppo-ptx-xl"]


def made(path: Path, metric: TextMetric = TextMetric.squad) -> tuple[dict[str, Any], list[Cell]]:
    cells = read(str(path), metric)
    return summarise(cells, metric, bootstrap_samples=50, seed=0), cells


@pytest.fixture
def sized(tmp_path: Path) -> tuple[dict[str, Any], list[Cell]]:
    groups = {"model_type": MODELS, "prompt_type": ["zeroshot", "fewshot"]}
    return made(table(tmp_path / "s.csv", groups))


class Balanced(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        if tag not in ("meta", "img", "br"):
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_the_answer_stands_before_tables_plots_and_samples(sized: tuple[dict[str, Any], list[Cell]]) -> None:
    report, _ = sized
    page = render(*sized)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    body = page[page.index("<main>") :]
    places = [body.index(part) for part in (report["statement"], report["basis"], "<table>", "<img", "Samples side")]
    assert places == sorted(places)
    assert "url(" not in page


def test_a_table_has_methods_down_and_sizes_across(sized: tuple[dict[str, Any], list[Cell]]) -> None:
    zero, few = tables(*sized)
    assert (zero.title, few.title) == ("zeroshot", "fewshot")
    assert zero.columns == ["xl", "6b"]
    assert [method for method, _ in zero.rows] == ["gpt", "ppo-noptx", "ppo-ptx"]
    assert [cell is None for _, row in zero.rows for cell in row] == [False] * 5 + [True]
    assert few.rows[1][1][0]["model_type"] == "ppo-noptx-xl"
    assert few.rows[1][1][0]["prompt_type"] == "fewshot"
    lines = text_table(*sized).splitlines()
    assert lines[0].split() == ["SQuAD", "F1,", "zeroshot", "xl", "6b"]
    assert re.fullmatch(r"ppo-ptx +77\.8 \[[\d., ]+\] +-", lines[3])
    assert lines[-2:] == [sized[0]["statement"], sized[0]["basis"]]


def test_there_is_a_plot_for_each_prompt_type_and_each_two_methods(sized: tuple[dict[str, Any], list[Cell]]) -> None:
    titles = [figure.title for figure in figures(*sized)]
    assert titles == [
        "SQuAD F1 by size, zeroshot",
        "SQuAD F1 by size, fewshot",
        "ppo-noptx minus gpt",
        "ppo-ptx minus ppo-noptx",
        "ppo-ptx minus gpt",
    ]


def test_models_without_sizes_and_tables_without_models_are_drawn_too(tmp_path: Path) -> None:
    report, cells = made(table(tmp_path / "s.csv", {"model_type": ["text-davinci-002", "davinci"]}))
    assert [figure.title for figure in figures(report, cells)] == ["SQuAD F1", "davinci minus text-davinci-002"]
    report, cells = made(table(tmp_path / "s.csv", {}))
    assert [figure.title for figure in figures(report, cells)] == ["SQuAD F1"]
    assert "<h2>Samples side by side</h2>" in render(report, cells)


def test_gpt_sft_and_ppo_look_as_base_sft_and_ppo_do(tmp_path: Path) -> None:
    report, cells = made(table(tmp_path / "s.csv", {"model_type": ["gpt-6b", "sft-6b", "ppo-noptx-6b", "ppo-ptx-6b"]}))
    keys = re.findall(r'style="background:(#\w+)"></span>([\w-]+)<', render(report, cells))
    colours = {name: colour for colour, name in keys}
    assert (colours["gpt"], colours["sft"], colours["ppo-noptx"]) == ("#6e6e6e", "#0072B2", "#D55E00")
    assert len(set(colours.values())) == 4


def test_samples_stand_beside_those_of_the_other_models_and_differences_are_marked(tmp_path: Path) -> None:
    samples = {"gpt-xl": ["a red boat here", *TEXTS[1:]], "ppo-noptx-xl": ["a blue boat here", *TEXTS[1:]]}
    page = render(*made(of_models(tmp_path / "s.csv", samples, ["a red boat here", *REFERENCES[1:]])))
    card = page[page.index('<div class="sample">') :]
    assert card.index("reference") < card.index("gpt-xl") < card.index("ppo-noptx-xl")
    assert "a <mark>blue</mark> boat here" in card
    assert "<mark>red</mark>" not in card


def test_text_of_models_is_escaped_and_a_long_context_is_folded(tmp_path: Path) -> None:
    attack = "<script>alert(1)</script>"
    rows = [{"model_type": f"<i>{i}", "context": attack * 40, "ref_text": attack, "sample": attack} for i in "ab"]
    rows += [{"model_type": f"<i>{i}", "context": "short", "ref_text": "", "sample": ""} for i in "ab"]
    page = render(*made(write(tmp_path / "s.csv", rows), TextMetric.bleu))
    assert "<script" not in page
    assert "<i>" not in page
    assert page.count("<details>") == 1
    assert page.count("(empty)") == 2


def test_contexts_are_chosen_at_equal_distances_of_those_that_most_cells_have(tmp_path: Path) -> None:
    rows = [
        {"model_type": model, "context": f"p{i}", "ref_text": "a", "sample": "a"}
        for model, count in (("one", 30), ("two", 20))
        for i in range(count)
    ]
    _, cells = made(write(tmp_path / "s.csv", rows))
    assert [context for context, _ in chosen_contexts(cells, 4)] == ["p0", "p5", "p10", "p15"]
    assert len(chosen_contexts(cells, 100)) == 20

from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from rlhf.config import Config
from rlhf.evaluation.comparison.curves import Curves
from rlhf.evaluation.comparison.page import how_it_was_made, render
from rlhf.evaluation.pages.html import mark_differences, spread_over_tasks

VOID = {"meta", "img", "br"}


class Balanced(HTMLParser):
    """Collects text and checks that every tag is closed by its own."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.seen: set[str] = set()
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.sources += [value or "" for name, value in attrs if name in ("src", "href")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


@pytest.fixture(scope="module")
def page(chain: Any) -> str:
    return render(chain.report, chain.responses, chain.curves, chain.made, side_by_side=8)


def test_the_page_is_whole_and_asks_the_network_for_nothing(page: str) -> None:
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    assert not parser.seen & {"script", "link", "iframe"}
    assert parser.sources
    assert all(source.startswith("data:image/svg+xml;base64,") for source in parser.sources)
    assert "url(" not in page
    assert "@import" not in page


def test_the_answer_stands_before_table_plots_samples_and_method(page: str, chain: Any) -> None:
    body = page[page.index("<main>") :]
    parts = (
        chain.report["statement"],
        "<table>",
        "<img",
        "Samples side by side",
        "How it was made",
        chain.made.command,
    )
    places = [body.index(part) for part in parts]
    assert places == sorted(places)


def test_text_of_models_and_users_is_escaped(chain: Any) -> None:
    attack = '<script>alert("x")</script><img src=x onerror=y>'
    row = dict(chain.responses[0])
    row["task"] = attack
    row["messages"] = [{"role": "user", "content": attack}, {"role": "assistant", "content": attack}]
    row["candidates"] = {n: {**a, "response": f"{attack} {n}"} for n, a in row["candidates"].items()}
    page = render(chain.report, [row], Curves(), chain.made, side_by_side=1)
    assert "<script" not in page
    assert "<img src=x" not in page
    assert page.count("&lt;script&gt;") >= 6


def test_the_table_holds_every_candidates_numbers(page: str, chain: Any) -> None:
    for name, candidate in chain.report["candidates"].items():
        assert name in page
        assert f"{candidate['judges']['gold']['score']:.3f}" in page
        assert f"{candidate['kl']:.2f}" in page


def test_samples_take_turns_over_tasks_and_stop_at_the_count(chain: Any) -> None:
    shown = spread_over_tasks(chain.responses, 8)
    assert len(shown) == 8
    assert len({row["task"] for row in shown[:7]}) == 7
    assert spread_over_tasks(chain.responses[:3], 99) == chain.responses[:3]


def test_only_words_that_the_baseline_has_not_are_marked() -> None:
    assert mark_differences("the big cat", "the cat") == "the <mark>big</mark> cat"
    assert mark_differences("the cat", "the cat") == "the cat"
    assert mark_differences("a <b>", "a c") == "a <mark>&lt;b&gt;</mark>"


def test_answers_with_nothing_in_common_are_left_unmarked() -> None:
    assert mark_differences("one two three", "four five six") == "one two three"


def test_an_empty_answer_and_a_cut_one_say_so(chain: Any) -> None:
    row = dict(chain.responses[0])
    row["candidates"] = {n: {**a, "response": "", "ended": False} for n, a in row["candidates"].items()}
    page = render(chain.report, [row], Curves(), chain.made, side_by_side=1)
    assert page.count("(empty)") == 3
    assert page.count("cut off") == 3


def test_how_it_was_made_names_command_versions_and_folders(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.argv", ["rlhf", "stage=compare", "run.name=two words"])
    made = how_it_was_made(Config(), {"sha256": "x"}, Path("runs/a/compare"), {"sft": Path("runs/a/sft/model")})
    assert made.command == "python -m rlhf stage=compare 'run.name=two words'"
    assert re.search(r"tie_margin: 0\.0", made.config)
    assert "torch" in made.versions
    assert made.folders["sft"] == "runs/a/sft/model"


def test_text_that_utf8_cannot_hold_does_not_lose_the_page(chain: Any) -> None:
    row = dict(chain.responses[0])
    row["messages"] = [{"role": "user", "content": "half a pair: \ud800"}]
    page = render(chain.report, [row], Curves(), chain.made, side_by_side=1)
    assert "half a pair: ?" in page
    page.encode("utf-8")


def test_an_llm_judge_is_shown_with_what_it_took_and_how_far_to_trust_it(judged: Any, chain: Any) -> None:
    page = render(judged.report, judged.responses, Curves(), judged.made, side_by_side=8)
    parser = Balanced()
    parser.feed(page)
    assert parser.open == []
    section = page[page.index("<h2>The LLM judge") : page.index("<h2>Samples")]
    assert "judge-8b at http://localhost:8000/v1: 500 requests, 24 answers from the cache" in section
    assert "$0.0512" in section
    llm = judged.report["candidates"]["ppo"]["judges"]["llm"]
    assert f"<td>{llm['n']} of 140</td>" in section
    assert f"<td>{llm['parse_failures']}</td>" in section
    assert f"<td>{100 * llm['position_bias']:.1f} % <small>[" in section
    assert "<dt>position bias</dt>" in page
    samples = page[page.index("<h2>Samples") :]
    assert "llm: no verdict" in samples
    assert "llm: wins" in samples
    without = render(chain.report, chain.responses, Curves(), chain.made, side_by_side=8)
    assert "LLM judge" not in without

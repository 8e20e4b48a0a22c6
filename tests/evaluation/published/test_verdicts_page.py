from __future__ import annotations

import base64
import re
import xml.etree.ElementTree as ElementTree
from html.parser import HTMLParser
from typing import Any

from rlhf.evaluation.published.verdicts_page import figures, render
from tests.support.published_rows import both_orders, league, liking_length, report, verdict


def titles(verdicts: list[Any]) -> list[str]:
    return [figure.title for figure in figures(report(verdicts))]


def test_the_page_begins_with_the_answer_and_loads_nothing() -> None:
    found = report(liking_length())
    page = render(found)
    assert page.index(found["statement"].split(";")[0]) < page.index("<table>") < page.index("<img")
    assert not re.search(r'(?:src|href)="(?!data:)', page)
    for picture in re.findall(r'src="data:image/svg\+xml;base64,([^"]+)"', page):
        ElementTree.fromstring(base64.b64decode(picture))


def test_what_the_numbers_allow_is_drawn() -> None:
    assert titles([verdict(1)]) == []
    assert titles(liking_length()) == ["Length and verdict"]
    assert titles([verdict(1, dataset="koala")]) == ["Win rate by dataset"]
    assert titles(league()) == ["Win rate of each pair", "Ratings"]


def test_words_that_the_page_does_not_use_are_not_explained() -> None:
    assert "<dt>Elo</dt>" in render(report(league()))
    assert "<dt>kappa</dt>" not in render(report(league()))
    assert "<dt>position bias</dt>" in render(report(both_orders(0, 1, 0)))


def test_open_ends_pairs_without_verdicts_and_odd_names_are_drawn_all_the_same() -> None:
    odd = [verdict(float(i > 0), i, generators=("base", "<b>$x$"), outputs=("a", "b")) for i in range(8)]
    found = report([*league(), *odd, verdict(None, generators=("base", "far"))])
    assert any(None in model["elo_ci"] for model in found["ratings"]["models"] if model["elo"] is not None)
    page = render(found)
    assert "<b>$x$" not in page
    assert "&lt;b&gt;$x$" in page

    class Balanced(HTMLParser):
        def __init__(self) -> None:
            super().__init__()
            self.open: list[str] = []

        def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
            if tag not in ("meta", "img"):
                self.open.append(tag)

        def handle_endtag(self, tag: str) -> None:
            assert self.open.pop() == tag

    parser = Balanced()
    parser.feed(page)
    assert parser.open == []

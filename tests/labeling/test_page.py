"""The page in a real browser, against the real server."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from rlhf.labeling.judgements import Judgement
from rlhf.labeling.store import Store
from tests.support.labeling import compared, write

ROOT = Path(__file__).resolve().parents[2]
CHROMIUM = shutil.which("chromium")
playwright = pytest.importorskip("playwright.sync_api", reason="playwright, of the dev packages, drives the browser")
expect = playwright.expect
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(CHROMIUM is None, reason="there is no chromium on this machine"),
]
TIMEOUT_MS = 30_000
PHONE = {"viewport": {"width": 390, "height": 844}, "has_touch": True, "is_mobile": True}
HOSTILE = [
    {
        "id": "hostile",
        "messages": [{"role": "user", "content": "<b>Bold</b> <script>document.title = 'owned'</script>"}],
        "candidates": {
            "sft": {"response": "<img src=x onerror=\"document.title='owned'\">"},
            "ppo": {"response": "</p></script><script>document.title = 'owned'</script>"},
            "base": {"response": "<a href=\"javascript:document.title='owned'\">{{7*7}} ${7*7} &lt;</a>\u202etxet"},
        },
    }
]


class Server:
    """`python -m rlhf stage=label` as a person starts it."""

    def __init__(self, folder: Path, rows: Sequence[Any], *words: str) -> None:
        self.folder = folder
        with socket.create_server(("127.0.0.1", 0)) as free:
            self.port = free.getsockname()[1]
        responses = write(folder / "responses.jsonl", rows)
        self.words = ["stage=label", f"label.responses={responses}", f"label.port={self.port}", *words]
        self.start()

    def start(self) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "rlhf", *self.words],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "DISPLAY": "", "WAYLAND_DISPLAY": ""},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        self.said = ""
        while "Ctrl-C ends it" not in self.said:
            line = self.process.stdout.readline()
            assert line, f"the server ended: {self.said}"
            self.said += line
        (self.url,) = re.findall(r"Judge here: (\S+)", self.said)

    def stop(self, number: int = signal.SIGINT) -> str:
        """What it said at the end."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.communicate(timeout=60)[0]

    @property
    def standing(self) -> list[Judgement]:
        return Store(self.folder / "runs" / "demo" / "label" / "labels.sqlite").standing()

    def ranked(self, labeler: str = "Ann") -> dict[str, dict[str, int]]:
        """By prompt, the ranks that a labeler gave, by the response's first word."""
        store = Store(self.folder / "runs" / "demo" / "label" / "labels.sqlite")
        items = store.items()
        return {
            items[said.item].prompt.id: {
                response.text.split()[0]: said.ranks[response.id] for response in items[said.item].responses
            }
            for said in store.standing()
            if said.labeler == labeler and not said.skipped
        }


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        opened = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield opened
        opened.close()


@pytest.fixture
def serve(tmp_path: Path) -> Iterator[Any]:
    started: list[Server] = []

    def start(rows: Sequence[Any], *words: str) -> Server:
        started.append(Server(tmp_path, rows, *words))
        return started[-1]

    yield start
    for server in started:
        server.stop(signal.SIGKILL)


def opened(browser: Any, server: Server, labeler: str = "Ann", **context: Any) -> Any:
    """A page on which the labeler has begun; a mistake of its script fails the test."""
    page = browser.new_context(**{"viewport": {"width": 1280, "height": 860}, **context}).new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.mistakes = []
    page.on("pageerror", lambda error: page.mistakes.append(str(error)))
    page.goto(server.url)
    page.get_by_label("Your name").fill(labeler)
    page.keyboard.press("Enter")
    expect(page.locator(".response").first).to_be_visible(timeout=TIMEOUT_MS)
    return page


def counted(page: Any, text: str) -> None:
    expect(page.locator("#count")).to_have_text(text, timeout=TIMEOUT_MS)


def press_ranks(page: Any) -> None:
    """By what the responses say: Good, then Fair and Bad on one place."""
    for number in range(page.locator(".response").count()):
        text = page.locator(".response .text").nth(number).inner_text()
        page.keyboard.press("1" if text.startswith("Good") else "2")


def test_a_session_by_keyboard_alone(browser: Any, serve: Any) -> None:
    server = serve(compared(3))
    page = opened(browser, server)
    assert "token" not in page.url
    page.keyboard.press("Shift+Digit7")
    page.keyboard.press("h")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("Shift+Digit2")
    page.keyboard.press("ArrowLeft")
    press_ranks(page)
    page.keyboard.press("Enter")
    counted(page, "1 of 3")
    page.keyboard.press("n")
    counted(page, "2 of 3")
    page.keyboard.press("u")
    counted(page, "1 of 3")
    page.keyboard.press("Enter")  # nothing is placed
    expect(page.get_by_role("alert")).to_contain_text("Give A, B, C a place first.")
    press_ranks(page)
    last = page.locator(".response .text").nth(2).inner_text().split()[0]
    page.keyboard.press("0")  # it loses its place
    expect(page.locator("#order")).to_contain_text("to place: C")
    page.keyboard.press("3")
    page.keyboard.press("Enter")
    counted(page, "2 of 3")
    press_ranks(page)
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", name="All judged")).to_be_visible(timeout=TIMEOUT_MS)
    page.keyboard.press("u")  # and the last one again
    counted(page, "2 of 3")
    page.keyboard.press("Enter")
    counted(page, "3 of 3")

    plain = {"Good": 0, "Fair": 1, "Bad": 1}
    places = {**plain, last: 2}
    changed = {name: sorted(set(places.values())).index(place) for name, place in places.items()}
    assert list(server.ranked().values()) == [plain, changed, plain]
    first = server.standing[0]
    assert sorted(first.quality.values()) == [2, 7]
    assert list(first.attributes.values()) == [["hallucination"]]
    assert page.mistakes == []


def test_a_session_by_mouse_alone_and_what_it_exports(browser: Any, serve: Any) -> None:
    server = serve(compared(2))
    page = opened(browser, server)
    for number in (1, 2):
        for place, words in enumerate(("Good", "Fair", "Bad")):
            response = page.locator(".response", has_text=f"{words} ")
            response.get_by_text(("1st", "2nd", "3rd")[place], exact=True).click()
            response.get_by_text(str(7 - place), exact=True).click()
        page.locator(".response", has_text="Bad ").get_by_text("Fails the instruction").click()
        page.locator(".response", has_text="Bad ").get_by_text("Opinion").click()
        page.locator(".response", has_text="Bad ").get_by_text("Opinion").click()  # and away again
        page.get_by_role("button", name="Save and go on").click()
        counted(page, f"{number} of 2")
    page.get_by_role("button", name="Labelers").click()
    expect(page.locator("#people-table")).to_contain_text("Ann", timeout=TIMEOUT_MS)
    assert page.mistakes == []

    said = server.stop()
    assert "Ann: 2 judged" in said
    assert "Traceback" not in said
    folder = server.folder / "runs" / "demo" / "label"
    rankings = [json.loads(line) for line in (folder / "rankings.jsonl").read_text().splitlines()]
    assert [dict(zip((g[0] for g in row["generators"]), row["ranks"], strict=True)) for row in rankings] == [
        {"ppo": 0, "sft": 1, "base": 2}
    ] * 2
    assert [sorted(row["margins"]) for row in rankings] == [[5, 6, 7]] * 2
    assert [sorted(map(tuple, row["attributes"])) for row in rankings] == [[(), (), ("fails_instruction",)]] * 2
    verdicts = [json.loads(line) for line in (folder / "verdicts.jsonl").read_text().splitlines()]
    told = {(row["generator_1"], row["generator_2"]): row["preference"] for row in verdicts}
    assert told == {("sft", "base"): 1, ("sft", "ppo"): 2, ("base", "ppo"): 2}
    assert f"data={Path('runs/demo/label/rankings.jsonl')}" in said


def test_nine_long_responses_fit_a_phone_and_can_be_judged_by_touch(browser: Any, serve: Any) -> None:
    texts = {f"m{number}": f"Response{number} " + "averyveryverylongword" * 40 for number in range(9)}
    server = serve(compared(1, **texts))
    page = opened(browser, server, **PHONE)
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    for number in range(9):
        response = page.locator(".response").nth(number)
        target = response.get_by_text("9th" if number else "1st", exact=True)
        target.tap()
        box = target.bounding_box()
        assert min(box["width"], box["height"]) >= 32
    page.get_by_role("button", name="Save and go on").tap()
    counted(page, "1 of 1")
    assert sorted(server.standing[0].ranks.values()) == [0] + [1] * 8
    assert page.mistakes == []


def test_what_a_model_wrote_is_shown_as_it_stands_and_never_run(browser: Any, serve: Any) -> None:
    server = serve(HOSTILE)
    asked: list[str] = []
    context = browser.new_context()
    context.on("request", lambda request: asked.append(request.url))
    page = context.new_page()
    page.set_default_timeout(TIMEOUT_MS)
    page.on("dialog", lambda dialog: pytest.fail(dialog.message))
    page.goto(server.url)
    page.get_by_label("Your name").fill("<i>Ann</i>")
    page.keyboard.press("Enter")
    expect(page.locator(".response")).to_have_count(3, timeout=TIMEOUT_MS)
    shown = page.locator(".response .text").all_text_contents()
    assert sorted(shown) == sorted(one["response"] for one in HOSTILE[0]["candidates"].values())
    expect(page.locator("#prompt .text")).to_have_text(HOSTILE[0]["messages"][0]["content"])
    expect(page.locator("#me")).to_have_text("<i>Ann</i>")
    assert page.locator("main img, main script, main a, main b, header i").count() == 0
    page.wait_for_timeout(300)
    assert page.title() == "Judge responses"
    assert all(url.startswith(f"http://127.0.0.1:{server.port}/") for url in asked)
    assert not [name for name in ("sft", "ppo", "base") if name in page.content().replace("based", "")]


def test_a_double_click_saves_once_and_skips_once(browser: Any, serve: Any) -> None:
    server = serve(compared(4))
    page = opened(browser, server)
    press_ranks(page)
    page.get_by_role("button", name="Save and go on").dblclick()
    counted(page, "1 of 4")
    page.get_by_role("button", name="Skip").dblclick()
    counted(page, "2 of 4")
    page.get_by_role("button", name="Undo").dblclick()
    counted(page, "1 of 4")
    page.wait_for_timeout(500)
    counted(page, "1 of 4")
    assert len(server.standing) == 1
    assert page.mistakes == []


def test_two_labelers_at_once_have_judgements_and_orders_of_their_own(browser: Any, serve: Any) -> None:
    server = serve(compared(6))
    pages = {name: opened(browser, server, name) for name in ("Ann", "Ben")}
    orders: dict[str, list[list[str]]] = {"Ann": [], "Ben": []}
    for number in range(6):
        for name, page in pages.items():
            orders[name].append(page.locator(".response .text").all_text_contents())
            press_ranks(page)
        for page in pages.values():
            page.keyboard.press("Enter")
        for page in pages.values():
            counted(page, f"{number + 1} of 6")
    assert orders["Ann"] != orders["Ben"]
    assert server.ranked("Ann") == server.ranked("Ben")
    assert len(server.standing) == 12
    expect(pages["Ann"].locator("#done-people")).to_contain_text("they ordered 100.0 % alike", timeout=TIMEOUT_MS)


def test_with_overlap_one_two_labelers_share_the_work(browser: Any, serve: Any) -> None:
    server = serve(compared(4), "label.overlap=1")
    ann, ben = (opened(browser, server, name) for name in ("Ann", "Ben"))
    for page, count in ((ann, "1 of 4"), (ann, "2 of 4"), (ben, "1 of 2")):
        press_ranks(page)
        page.keyboard.press("Enter")
        counted(page, count)
    # Of Ben's two prompts Ann has one in hand.
    expect(ben.locator("#done-title")).to_have_text("Nothing left for now", timeout=TIMEOUT_MS)
    expect(ben.locator("#done-text")).to_contain_text("1 of 2 prompts; others have the rest in hand")
    press_ranks(ann)
    ann.keyboard.press("Enter")
    counted(ann, "3 of 3")
    expect(ann.locator("#done-title")).to_have_text("All judged", timeout=TIMEOUT_MS)
    ben.get_by_role("button", name="Ask again").click()
    counted(ben, "1 of 1")
    expect(ben.locator("#done-title")).to_have_text("All judged", timeout=TIMEOUT_MS)
    judged = [said.item for said in server.standing]
    assert len(judged) == len(set(judged)) == 4


def test_a_killed_server_loses_nothing_and_the_page_goes_on_when_it_is_back(browser: Any, serve: Any) -> None:
    server = serve(compared(3))
    page = opened(browser, server)
    press_ranks(page)
    page.keyboard.press("Enter")
    counted(page, "1 of 3")
    press_ranks(page)
    server.stop(signal.SIGKILL)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("The server does not answer. What you have judged is kept")
    page.keyboard.press("Enter")
    assert len(server.standing) == 1
    server.start()
    counted(page, "2 of 3")
    expect(page.get_by_role("alert")).to_be_hidden()
    assert len(server.standing) == 2

    page.keyboard.press("2")  # begun, and not saved: it is there after a crash of server and browser tab
    server.stop(signal.SIGKILL)
    server.start()
    page.goto(server.url)
    counted(page, "2 of 3")
    expect(page.locator("#order")).to_contain_text("A· to place: B, C")
    assert page.mistakes == []


def test_a_judgement_whose_answer_is_lost_is_sent_again_and_counts_once(browser: Any, serve: Any) -> None:
    server = serve(compared(2))
    page = opened(browser, server)
    sent = []

    def lose_the_first(route: Any) -> None:
        sent.append(route.request.post_data_json["id"])
        if len(sent) == 1:
            route.fetch()
            route.abort()
        else:
            route.continue_()

    page.route("**/api/judge", lose_the_first)
    press_ranks(page)
    page.keyboard.press("Enter")
    counted(page, "1 of 2")
    assert len(sent) == 2
    assert len(set(sent)) == 1
    assert len(server.standing) == 1


def test_a_tab_closed_before_the_server_was_back_sends_what_it_had_when_it_is_opened_again(
    browser: Any, serve: Any
) -> None:
    server = serve(compared(2))
    page = opened(browser, server)
    press_ranks(page)
    server.stop(signal.SIGKILL)
    page.keyboard.press("Enter")
    expect(page.get_by_role("alert")).to_contain_text("does not answer", timeout=TIMEOUT_MS)
    context = page.context
    page.close()
    server.start()
    again = context.new_page()
    again.goto(server.url)
    counted(again, "1 of 2")
    assert len(server.standing) == 1


def test_a_second_window_of_one_labeler_is_told_that_the_first_judged(browser: Any, serve: Any) -> None:
    server = serve(compared(2))
    page = opened(browser, server)
    other = page.context.browser.new_context(viewport={"width": 900, "height": 800}).new_page()
    other.goto(server.url)
    other.get_by_role("button", name="Ann").or_(other.get_by_label("Your name")).first.wait_for()
    other.get_by_label("Your name").fill("Ann")
    other.keyboard.press("Enter")
    expect(other.locator(".response")).to_have_count(3, timeout=TIMEOUT_MS)
    for window in (page, other):
        press_ranks(window)
    page.keyboard.press("Enter")
    counted(page, "1 of 2")
    other.keyboard.press("Enter")
    counted(other, "1 of 2")
    expect(other.get_by_role("alert")).to_contain_text("You have judged this prompt already, in another window")
    assert len(server.standing) == 1


def test_without_the_token_there_is_nothing_to_see(browser: Any, serve: Any) -> None:
    server = serve(compared(1))
    page = browser.new_context().new_page()
    answer = page.goto(server.url.partition("?")[0])
    assert answer.status == 403
    assert "Open the address that the terminal printed" in page.content()


def test_ctrl_c_ends_it_at_once_with_pages_open(browser: Any, serve: Any) -> None:
    server = serve(compared(1))
    opened(browser, server)
    began = time.monotonic()
    said = server.stop()
    assert time.monotonic() - began < 20
    assert server.process.returncode == 0
    assert "nobody has judged yet" in said

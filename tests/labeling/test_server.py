from __future__ import annotations

import json
import re
import stat
import uuid
from pathlib import Path
from typing import Any

import httpx
import pytest
from starlette.testclient import TestClient

from rlhf.errors import UserError
from rlhf.labeling.items import Item
from rlhf.labeling.server import MOST_BYTES, address, application, is_loopback, kept_token, listen
from rlhf.labeling.session import Session
from rlhf.labeling.store import Store
from tests.support.labeling import item, sent

TOKEN = "a-token"
ITEMS = [item(number) for number in range(3)]
BASE = "http://127.0.0.1:7860"
PAGE = {"Origin": BASE}
HELD = {"Cookie": f"rlhf_label_7860={TOKEN}"}


def client(path: Path, items: list[Item] = ITEMS, overlap: int | None = None, *, cookie: bool = True) -> TestClient:
    store = Store(path / "labels.sqlite")
    store.add_items(items)
    session = Session(store, {one.key: one for one in items}, overlap, seed=0)
    app = application(session, TOKEN, host="127.0.0.1", port=7860)
    cookies = {"rlhf_label_7860": TOKEN} if cookie else {}
    return TestClient(app, base_url=BASE, cookies=cookies, headers=PAGE, raise_server_exceptions=False)


def taken(page: TestClient, labeler: str = "Ann") -> dict[str, Any]:
    return page.post("/api/next", json={"labeler": labeler}).json()


def judge(page: TestClient, body: Any) -> httpx.Response:
    return page.post("/api/judge", json=body)


def test_a_session_of_judging_skipping_undoing_and_judging_again(tmp_path: Path) -> None:
    page = client(tmp_path)
    assert taken(page)["item"]["key"] == ITEMS[0].key
    first = sent(ITEMS[0], (0, 1, 2), quality={ITEMS[0].responses[0].id: 6})
    assert judge(page, first).json() == {"counted": True}
    assert judge(page, sent(ITEMS[1], (0, 1, 2), skipped=True)).json() == {"counted": True}
    state = taken(page)
    assert (state["item"]["key"], state["judged"], state["total"]) == (ITEMS[2].key, 2, 3)

    page.post("/api/undo", json={"labeler": "Ann", "id": state["last"]})
    undone = page.post("/api/undo", json={"labeler": "Ann", "id": first["id"]}).json()
    assert undone["item"]["key"] == ITEMS[0].key
    assert undone["judgement"] == {key: first[key] for key in ("ranks", "quality", "attributes", "seconds")}
    assert (undone["judged"], undone["last"]) == (0, None)
    assert page.post("/api/undo", json={"labeler": "Ann", "id": first["id"]}).json()["item"] is None
    assert taken(page)["item"]["key"] == ITEMS[0].key
    assert judge(page, sent(ITEMS[0], (2, 1, 0))).json() == {"counted": True}
    assert taken(page)["judged"] == 1


def test_no_name_of_a_candidate_and_no_place_in_the_file_reaches_the_page(tmp_path: Path) -> None:
    items = [item(0, {"secret-one": "a", "secret-two": "b", "secret-three": "c"})]
    page = client(tmp_path, items)
    answers = [page.get(path).text for path in ("/", "/api/session", "/api/progress", "/static/label.js")]
    answers.append(page.post("/api/next", json={"labeler": "Ann"}).text)
    answers.append(judge(page, sent(items[0], (0, 1, 2))).text)
    assert not [text for text in answers if "secret" in text]
    shown = json.loads(answers[-2])["item"]["responses"]
    assert [set(response) for response in shown] == [{"id", "text"}] * 3


def test_the_same_judgement_twice_counts_once_and_another_on_the_item_is_refused(tmp_path: Path) -> None:
    page, body = client(tmp_path), sent(ITEMS[0], (0, 1, 2))
    assert [judge(page, body).json()["counted"] for _ in range(3)] == [True, False, False]
    refused = judge(page, {**body, "id": uuid.uuid4().hex})
    assert refused.status_code == 409
    assert "You have judged this prompt already" in refused.json()["error"]
    assert taken(page)["judged"] == 1


def test_two_labelers_have_counts_of_their_own_and_their_agreement_shows(tmp_path: Path) -> None:
    page = client(tmp_path)
    for labeler, ranks in (("Ann", (0, 1, 2)), ("Ben", (0, 2, 1))):
        judge(page, sent(ITEMS[0], ranks, labeler))
    judge(page, sent(ITEMS[1], (0, 1, 2), "Ben", skipped=True))
    found = page.get("/api/progress").json()
    assert [(row["name"], row["judged"], row["skipped"]) for row in found["labelers"]] == [("Ann", 1, 0), ("Ben", 1, 1)]
    assert found["agreement"]["share"] == pytest.approx(2 / 3)
    assert found["labelers"][0]["agrees"] == pytest.approx(2 / 3)
    assert page.get("/api/session").json()["labelers"] == ["Ann", "Ben"]


def test_with_overlap_one_what_another_judged_is_not_part_of_my_total_and_what_he_holds_is_not_mine_yet(
    tmp_path: Path,
) -> None:
    page = client(tmp_path, overlap=1)
    judge(page, sent(ITEMS[0], (0, 1, 2), "Ben"))
    assert taken(page, "Ben")["item"]["key"] == ITEMS[1].key
    state = taken(page)
    assert (state["item"]["key"], state["judged"], state["total"]) == (ITEMS[2].key, 0, 2)
    judge(page, sent(ITEMS[2], (0, 1, 2)))
    waiting = taken(page)
    assert (waiting["item"], waiting["judged"], waiting["total"]) == (None, 1, 2)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Cookie": "rlhf_label_7860=another"}, 403),
        ({"Cookie": f"rlhf_label_7861={TOKEN}"}, 403),
        ({}, 403),
        ({**HELD, "Host": "rebound.example:7860"}, 421),
        (
            {
                "Cookie": f"rlhf_label_7860={TOKEN}",
                "Host": "rebound.example:7860",
                "Origin": "http://rebound.example:7860",
            },
            421,
        ),
        ({**HELD, "Host": "[::bad"}, 421),
        ({**HELD, "Origin": "http://evil.example"}, 403),
        ({**HELD, "Origin": "http://127.0.0.1:9999"}, 403),
        ({**HELD, "Origin": "null"}, 403),
        ({**HELD, "Content-Type": "text/plain"}, 415),
        (HELD, 200),
        ({**HELD, "Host": "localhost:8000", "Origin": "http://localhost:8000"}, 200),
        ({**HELD, "Host": "192.168.1.9:7860", "Origin": "http://192.168.1.9:7860"}, 200),
    ],
)
def test_a_change_needs_the_token_this_machines_name_and_the_page_as_its_origin(
    tmp_path: Path, headers: dict[str, str], status: int
) -> None:
    page = client(tmp_path, cookie=False)
    body = json.dumps(sent(ITEMS[0], (0, 1, 2)))
    answer = page.post("/api/judge", content=body, headers={"Content-Type": "application/json", **headers})
    assert answer.status_code == status
    assert len(Store(tmp_path / "labels.sqlite").standing()) == (status == 200)


@pytest.mark.parametrize("path", ["/", "/static/label.js", "/api/session", "/api/progress", "/nothing"])
def test_nothing_is_shown_without_the_token(tmp_path: Path, path: str) -> None:
    page = client(tmp_path, cookie=False)
    assert page.get(path).status_code == 403
    assert page.get(f"{path}?token=a-tokem").status_code == 403
    assert page.get(path, headers={"Host": "rebound.example", "Cookie": f"rlhf_label_7860={TOKEN}"}).status_code == 421


def test_a_change_without_an_origin_is_refused(tmp_path: Path) -> None:
    page = client(tmp_path)
    del page.headers["Origin"]
    assert taken(page) == {"error": "Only this server's own page may send that."}


def test_the_token_in_the_address_becomes_a_cookie_that_scripts_and_other_sites_cannot_use(tmp_path: Path) -> None:
    page = client(tmp_path, cookie=False)
    answer = page.get(f"/?token={TOKEN}")
    assert answer.status_code == 200
    cookie = answer.headers["Set-Cookie"]
    assert cookie.startswith(f"rlhf_label_7860={TOKEN}; HttpOnly; SameSite=Strict; Path=/")
    assert page.get("/").status_code == 200
    assert TOKEN not in page.get("/").text
    assert "Set-Cookie" not in client(tmp_path, cookie=False).get("/?token=other").headers


@pytest.mark.parametrize("path", ["/", "/static/label.css", "/api/session", "/nothing", "/static/../server.py"])
def test_every_answer_forbids_foreign_and_inline_code_frames_and_copies(tmp_path: Path, path: str) -> None:
    headers = client(tmp_path).get(path).headers
    policy = headers["Content-Security-Policy"]
    assert "default-src 'none'; script-src 'self'; style-src 'self'" in policy
    assert "unsafe" not in policy
    assert "frame-ancestors 'none'" in policy
    assert headers["Cache-Control"] == "no-store"
    assert headers["Referrer-Policy"] == "no-referrer"
    assert headers["X-Content-Type-Options"] == "nosniff"


def test_the_page_names_no_other_host_and_has_no_inline_code_and_no_way_to_parse_html() -> None:
    folder = Path(application.__code__.co_filename).parent / "page"
    html, script = (folder / "index.html").read_text(), (folder / "label.js").read_text()
    assert "http" not in html
    assert " style=" not in html
    assert not re.search(r"\son\w+\s*=", html)
    for parsing in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", "new Function"):
        assert parsing not in script


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        ("{", "no JSON"),
        ("[" * 50_000, "no JSON"),
        ("[1]", "no JSON object"),
        ("{}", "no such item"),
        ('{"item": ["x"]}', "no such item"),
        (json.dumps({**sent(ITEMS[0], (0, 1, 2)), "ranks": {}}), "does not place every response"),
        (" " * (MOST_BYTES + 1), f"more than {MOST_BYTES} bytes"),
    ],
    ids=[
        "cut off",
        "deep",
        "list",
        "empty",
        "no key",
        "no ranks",
        "huge",
    ],  # a judgement has an id of its own each time
)
def test_a_body_that_is_no_judgement_is_refused_and_nothing_is_kept(tmp_path: Path, body: str, problem: str) -> None:
    answer = client(tmp_path).post("/api/judge", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 422
    assert problem in answer.json()["error"]
    assert Store(tmp_path / "labels.sqlite").standing() == []


def test_a_judgement_that_cannot_be_saved_is_one_to_be_sent_again(tmp_path: Path) -> None:
    page = client(tmp_path)
    kept = tmp_path / "labels.sqlite"
    kept.rename(tmp_path / "away")
    kept.mkdir()  # nobody can write there, root among them
    answer = judge(page, sent(ITEMS[0], (0, 1, 2)))
    assert answer.status_code == 503
    assert answer.json()["error"].startswith("It could not be saved")


def test_what_the_file_no_longer_has_can_still_be_judged_and_undone(tmp_path: Path) -> None:
    client(tmp_path, ITEMS)
    page, body = client(tmp_path, ITEMS[1:]), sent(ITEMS[0], (0, 1, 2))
    assert judge(page, body).json() == {"counted": True}
    assert taken(page)["judged"] == 0  # of these
    assert page.post("/api/undo", json={"labeler": "Ann", "id": body["id"]}).json()["item"]["key"] == ITEMS[0].key


def test_the_token_is_made_once_and_is_its_owners_alone(tmp_path: Path) -> None:
    token = kept_token(tmp_path / "token")
    assert len(token) > 40
    assert kept_token(tmp_path / "token") == token
    assert stat.S_IMODE((tmp_path / "token").stat().st_mode) == 0o600
    assert kept_token(tmp_path / "other") != token


def test_addresses_name_the_host_and_a_port_that_is_taken_is_said() -> None:
    assert address("127.0.0.1", 7860, "t") == "http://127.0.0.1:7860/?token=t"
    assert address("::1", 7860, "t") == "http://[::1]:7860/?token=t"
    assert "0.0.0.0" not in address("0.0.0.0", 7860, "t")
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "10.0.0.1", "name")] == [
        *(True, True, True),
        *(False, False, False),
    ]
    with listen("127.0.0.1", 0) as taken_socket:
        port = taken_socket.getsockname()[1]
        with pytest.raises(UserError, match=rf"label\.port={port} cannot be listened on .* set label\.port to another"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("left", [b"", b"short", b"\xff" * 40, None])
def test_a_token_file_that_a_crash_left_empty_lets_nobody_in(tmp_path: Path, left: bytes | None) -> None:
    path = tmp_path / "token"
    if left is not None:
        path.write_bytes(left)
    token = kept_token(path)
    assert len(token) > 30
    assert kept_token(path) == token
    assert path.stat().st_mode & 0o777 == 0o600
    assert [file.name for file in tmp_path.iterdir()] == ["token"]


@pytest.mark.parametrize("seconds", [10**400, 10**12, -1, True, "1"])
def test_a_time_that_nobody_can_have_looked_is_refused(tmp_path: Path, seconds: Any) -> None:
    answer = judge(client(tmp_path), {**sent(ITEMS[0], (0, 1, 2)), "seconds": seconds})
    assert answer.status_code == 422
    assert "seconds" in answer.json()["error"]

from __future__ import annotations

import time
from typing import Any

import pytest

from rlhf.config import SelfInstructServerConfig
from rlhf.errors import UserError
from rlhf.runtime.openai_server import KEY
from rlhf.self_instruct.records import Completion
from rlhf.self_instruct.server import Server
from tests.support.fake_server import FakeServer, server

__all__ = ["server"]  # the fixture


def ask(server: FakeServer, prompts: list[str], pauses: list[float] | None = None, **settings: Any) -> list[Completion]:
    config = SelfInstructServerConfig(**{"url": server.url, "model": "m", "retries": 2, **settings})
    writer = Server(config, bars=False, sleep=(pauses if pauses is not None else []).append)
    return writer.complete(prompts, max_tokens=7, temperature=0.5, stop=["\n", "\nTask:"], seed=3, doing="test")


def test_completions_come_back_in_order_each_asked_for_with_its_own_seed(server: FakeServer) -> None:
    def later_first(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        time.sleep(0.1 if body["prompt"] == "p0" else 0)
        return 200, server.completion(body)

    server.answer = later_first
    prompts = [f"p{i}" for i in range(12)]
    assert ask(server, prompts) == [Completion(f"after p{i}", True) for i in range(12)]
    bodies = {body["prompt"]: body for _, body, _ in server.asked}
    assert bodies["p5"] == {
        "model": "m",
        "prompt": "p5",
        "max_tokens": 7,
        "temperature": 0.5,
        "stop": ["\n", "\nTask:"],
        "seed": 8,
    }
    assert {path for path, _, _ in server.asked} == {"/v1/completions"}


def test_a_chat_model_is_asked_as_a_user(server: FakeServer) -> None:
    assert ask(server, ["hello"], chat=True) == [Completion("to hello", True)]
    assert server.asked[0][0] == "/v1/chat/completions"
    assert server.asked[0][1]["messages"] == [{"role": "user", "content": "hello"}]


def test_no_more_requests_are_under_way_than_allowed(server: FakeServer) -> None:
    def slow(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        time.sleep(0.03)
        return 200, server.completion(body)

    server.answer = slow
    ask(server, [str(i) for i in range(12)], parallel=3)
    assert server.most_under_way == 3


@pytest.mark.parametrize("status", [429, 500, 503])
def test_what_may_pass_is_tried_again_after_growing_pauses(server: FakeServer, status: int) -> None:
    server.answer = lambda server, body, times: (status, {}) if times < 2 else (200, server.completion(body))
    pauses: list[float] = []
    assert ask(server, ["p"], pauses) == [Completion("after p", True)]
    assert len(pauses) == 2
    assert 0.75 <= pauses[0] <= 1.25
    assert 1.5 <= pauses[1] <= 2.5


def test_the_pause_is_as_long_as_the_server_asks_for(server: FakeServer) -> None:
    server.headers = {"Retry-After": "17"}
    server.answer = lambda server, body, times: (429, {}) if times == 0 else (200, server.completion(body))
    pauses: list[float] = []
    ask(server, ["p"], pauses)
    assert pauses == [17.0]


def test_an_answer_that_comes_too_late_is_asked_for_again(server: FakeServer) -> None:
    def slow_once(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
        time.sleep(0.6 if times == 0 else 0)
        return 200, server.completion(body)

    server.answer = slow_once
    assert ask(server, ["p"], timeout_s=0.2) == [Completion("after p", True)]
    assert len(server.asked) == 2


def test_a_server_that_goes_on_failing_stops_the_run(server: FakeServer) -> None:
    server.answer = lambda server, body, times: (500, {"error": "out of memory"})
    with pytest.raises(UserError, match=r"answers 500: .*out of memory.* after 3 tries.*self_instruct\.server\.url"):
        ask(server, ["p"])
    assert len(server.asked) == 3


def test_a_server_that_is_not_there_stops_the_run() -> None:
    config = SelfInstructServerConfig(url="http://127.0.0.1:9/v1", model="m", retries=1)
    writer = Server(config, bars=False, sleep=lambda _: None)
    with pytest.raises(UserError, match=r"does not answer .* after 2 tries"):
        writer.complete(["p"], max_tokens=1, temperature=1.0, stop=[], seed=0, doing="test")


@pytest.mark.parametrize(
    ("status", "remedy"), [(400, "too long"), (401, KEY), (404, r"server\.model"), (302, r"server\.url \(up")]
)
def test_a_refusal_is_not_repeated_and_says_what_to_change(server: FakeServer, status: int, remedy: str) -> None:
    server.headers = {"Location": f"{server.url}/elsewhere"}
    server.answer = lambda server, body, times: (status, {"error": "no"})
    with pytest.raises(UserError, match=remedy):
        ask(server, ["p"])
    assert len(server.asked) == 1


@pytest.mark.parametrize("content", [{"choices": []}, {"id": 1}, [], {"choices": [{"message": {}}]}])
def test_an_answer_of_another_form_is_refused(server: FakeServer, content: Any) -> None:
    server.answer = lambda server, body, times: (200, content)
    with pytest.raises(UserError, match="another form than OpenAI's"):
        ask(server, ["p"])


def test_an_answer_that_is_no_json_is_asked_for_again(server: FakeServer) -> None:
    server.answer = lambda server, body, times: (200, b"<html>" if times == 0 else server.completion(body))
    assert ask(server, ["p"]) == [Completion("after p", True)]


def test_the_key_goes_into_the_header_and_never_into_a_message(
    server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(KEY, "sk-secret")
    server.answer = lambda server, body, times: (401, {"error": "sk-secret is no key of ours"})
    with pytest.raises(UserError, match="is no key of ours") as raised:
        ask(server, ["p"])
    assert server.asked[0][2] == "Bearer sk-secret"
    assert "sk-secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_without_a_key_there_is_no_header(server: FakeServer) -> None:
    ask(server, ["p"])
    assert server.asked[0][2] is None


def test_a_completion_is_finished_unless_it_was_cut_at_the_limit(server: FakeServer) -> None:
    texts = {"a": ("whole", "stop"), "b": ("cut", "length"), "c": ("before\nafter", "length")}
    server.answer = lambda server, body, times: (200, server.completion(body, *texts[body["prompt"]]))
    assert ask(server, ["a", "b", "c"]) == [
        Completion("whole", True),
        Completion("cut", False),
        Completion("before", True),  # a server that does not know the stop string
    ]

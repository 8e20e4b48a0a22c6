from __future__ import annotations

import threading
import time
from typing import Any

import pytest

from rlhf.errors import UserError
from rlhf.runtime.openai_server import KEY, Answer, OpenAIServer, Spacing, Words, in_parallel
from tests.support.fake_server import FakeServer, server

__all__ = ["server"]  # the fixture
WORDS = Words(node="judge.llm", resumes="answers are kept", refused="Ask for less.")


def client(server: FakeServer, **settings: Any) -> OpenAIServer:
    given: dict[str, Any] = {"chat": True, "timeout_s": 5.0, "retries": 2, "words": WORDS, "sleep": lambda _: None}
    return OpenAIServer(server.url, "m", **(given | settings))


def ask(server: FakeServer, prompt: str = "p", **settings: Any) -> Answer:
    asked = client(server, **settings)
    return asked.ask(asked.body(prompt, {"max_tokens": 7}))


def test_tokens_are_those_that_the_server_counts(server: FakeServer) -> None:
    server.answer = lambda server, body, times: (200, server.completion(body, usage=(11, 3)))
    assert ask(server) == Answer("to p", True, 11, 3)


@pytest.mark.parametrize("usage", [None, {}, {"prompt_tokens": None, "completion_tokens": "3"}])
def test_tokens_that_nobody_counts_are_unknown(server: FakeServer, usage: Any) -> None:
    server.answer = lambda server, body, times: (200, {**server.completion(body), "usage": usage})
    assert ask(server) == Answer("to p", True, None, None)


def test_the_errors_name_the_keys_of_the_one_who_asks(server: FakeServer) -> None:
    server.answer = lambda server, body, times: (500, {})
    with pytest.raises(UserError, match=r"change judge\.llm\.url, timeout_s or retries; answers are kept\.$"):
        ask(server)
    server.answer = lambda server, body, times: (400, {})
    with pytest.raises(UserError, match=r"Ask for less\.$"):
        ask(server)
    server.answer = lambda server, body, times: (404, {})
    with pytest.raises(UserError, match=r"judge\.llm\.url .*judge\.llm\.model"):
        ask(server)
    server.answer = lambda server, body, times: (200, {})
    with pytest.raises(UserError, match=r"set judge\.llm\.url to an OpenAI-compatible server"):
        ask(server)


class Clock:
    """Time that passes by sleeping alone."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_requests_are_spaced_evenly() -> None:
    clock = Clock()
    spacing = Spacing(30, sleep=clock.sleep, clock=clock)
    begun = []
    for work_s in (0.0, 0.5, 7.0, 0.0):
        spacing.wait()
        begun.append(clock.now)
        clock.now += work_s
    assert begun == [100.0, 102.0, 104.0, 111.0]  # the third took longer than a place in time, and nobody waits for it


def test_threads_that_come_at_once_get_a_place_in_time_each() -> None:
    slept: list[float] = []
    spacing = Spacing(60, sleep=slept.append, clock=lambda: 0.0)
    threads = [threading.Thread(target=spacing.wait) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(slept) == [1.0, 2.0, 3.0, 4.0]


def test_without_a_limit_nobody_waits() -> None:
    slept: list[float] = []
    for _ in range(3):
        Spacing(0, sleep=slept.append).wait()
    assert slept == []


def test_a_retry_is_a_request_too(server: FakeServer) -> None:
    server.answer = lambda server, body, times: (503, {}) if times == 0 else (200, server.completion(body))
    pauses: list[float] = []
    ask(server, requests_per_minute=0.5, sleep=pauses.append)
    assert pauses[0] <= 1.25  # before it tries again
    assert pauses[1] == pytest.approx(120, abs=5)  # its place in time, as the first pause did not pass really


def test_a_look_finds_out_that_nobody_is_there(server: FakeServer, monkeypatch: pytest.MonkeyPatch) -> None:
    client(server).check()
    assert server.looked_at == [("/v1/models", None)]
    assert server.asked == []
    server.models_status = 500  # as `transformers serve` answers where it finds no cache of models
    client(server).check()
    server.models_status = 401
    monkeypatch.setenv(KEY, "sk-secret")
    with pytest.raises(UserError, match=f"answers 401.*{KEY}"):
        client(server).check()
    assert server.looked_at[-1] == ("/v1/models", "Bearer sk-secret")
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1 does not answer .*change judge\.llm\.url"):
        client(server).check()


def test_after_an_error_nothing_new_is_begun() -> None:
    begun = []

    def work(item: int) -> int:
        begun.append(item)
        if item == 1:
            raise UserError("no")
        time.sleep(0.01)
        return item

    assert in_parallel(lambda item: item * 2, [1, 2, 3], 2) == [2, 4, 6]
    with pytest.raises(UserError):
        in_parallel(work, range(50), 1)
    assert len(begun) < 10

"""An OpenAI-compatible server on localhost whose answers a test scripts."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from rlhf.runtime.openai_server import KEY

Answer = Callable[["FakeServer", dict[str, Any], int], tuple[int, Any]]  # body, how often asked that -> status, JSON


class FakeServer:
    """Speaks OpenAI's completions on localhost, as `answer` says."""

    def __init__(self) -> None:
        self.answer: Answer = lambda server, body, times: (200, server.completion(body))
        self.asked: list[tuple[str, dict[str, Any], str | None]] = []  # path, body, Authorization
        self.looked_at: list[tuple[str, str | None]] = []  # path, Authorization of what was only looked at
        self.models_status = 200
        self.headers: dict[str, str] = {}
        self.lock = threading.Lock()
        self.under_way = self.most_under_way = 0
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with outer.lock:
                    times = sum(body == asked for _, asked, _ in outer.asked)
                    outer.asked.append((self.path, body, self.headers["Authorization"]))
                    outer.under_way += 1
                    outer.most_under_way = max(outer.most_under_way, outer.under_way)
                status, content = outer.answer(outer, body, times)
                with outer.lock:
                    outer.under_way -= 1
                self.send_response(status)
                for name, value in outer.headers.items():
                    self.send_header(name, value)
                self.end_headers()
                with contextlib.suppress(BrokenPipeError):  # the client did not wait
                    self.wfile.write(content if isinstance(content, bytes) else json.dumps(content).encode())

            def do_GET(self) -> None:
                with outer.lock:
                    outer.looked_at.append((self.path, self.headers["Authorization"]))
                self.send_response(outer.models_status)
                self.end_headers()
                self.wfile.write(b'{"data": []}')

            def log_message(self, *arguments: Any) -> None:
                pass

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.http.serve_forever, args=(0.02,), daemon=True).start()
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"

    @staticmethod
    def completion(
        body: dict[str, Any], text: str | None = None, reason: str = "stop", usage: tuple[int, int] | None = None
    ) -> dict[str, Any]:
        """usage: tokens of the prompt and of the completion; None: not said."""
        counted = {} if usage is None else {"usage": {"prompt_tokens": usage[0], "completion_tokens": usage[1]}}
        if "messages" in body:
            said = {"role": "assistant", "content": text or f"to {body['messages'][0]['content']}"}
            return {"choices": [{"message": said, "finish_reason": reason}], **counted}
        return {"choices": [{"text": text or f"after {body['prompt']}", "finish_reason": reason}], **counted}


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeServer]:
    monkeypatch.delenv(KEY, raising=False)
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    fake = FakeServer()
    yield fake
    fake.http.shutdown()
    fake.http.server_close()


def shown(body: dict[str, Any]) -> tuple[str, str]:
    """The two responses that an LLM judge is asked about, in the order in which they are shown."""
    text = body["messages"][0]["content"]
    found = re.search(r"<response_a>\n(.*)\n</response_a>\n\n<response_b>\n(.*)\n</response_b>", text, re.S)
    assert found
    return found[1], found[2]

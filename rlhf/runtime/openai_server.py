"""A client of OpenAI-compatible servers: vLLM, llama.cpp, `transformers serve`, OpenAI itself.

The key that a server may ask for is read from OPENAI_API_KEY and goes nowhere but into the request's header.
"""

from __future__ import annotations

import json
import os
import random
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.client import HTTPException
from typing import Any, TypeVar

from rlhf.errors import UserError

KEY = "OPENAI_API_KEY"
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses that may pass
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_PROBE_TIMEOUT_S = 10.0

Item = TypeVar("Item")
Result = TypeVar("Result")


@dataclass(frozen=True)
class Answer:
    text: str
    finished: bool  # False: cut at the limit of tokens
    prompt_tokens: int | None  # as the server counts them; None: it does not say
    completion_tokens: int | None


@dataclass(frozen=True)
class Words:
    """What the errors say that only the one who asks knows."""

    node: str  # of the config, with `url`, `model`, `chat`, `timeout_s` and `retries`: "self_instruct.server"
    resumes: str  # what is kept: "the same command goes on from the last whole round"
    refused: str  # what to change when the server takes a request for a bad one


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the key to wherever it points, and turn a POST into a GET."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


class Spacing:
    """Requests begin at least 60 / `per_minute` seconds apart, whichever thread sends them; 0: as they come."""

    def __init__(
        self, per_minute: float, *, sleep: Callable[[float], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._between_s = 60 / per_minute if per_minute > 0 else 0.0
        self._sleep = sleep
        self._clock = clock
        self._lock = threading.Lock()
        self._next = -float("inf")

    def wait(self) -> None:
        if self._between_s == 0:
            return
        with self._lock:  # a place in time is taken inside, and waited for outside
            now = self._clock()
            begins = max(now, self._next)
            self._next = begins + self._between_s
        if begins > now:
            self._sleep(begins - now)


class OpenAIServer:
    """The model that the server at `url` calls `model`; threads may share it.

    url:   up to and with /v1.
    chat:  ask /chat/completions, and not /completions.
    sleep: what a pause is made with.
    """

    def __init__(
        self,
        url: str,
        model: str,
        *,
        chat: bool,
        timeout_s: float,
        retries: int,
        words: Words,
        requests_per_minute: float = 0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._url = url.rstrip("/")
        self._endpoint = f"{self._url}/{'chat/completions' if chat else 'completions'}"
        self._model = model
        self._chat = chat
        self._timeout_s = timeout_s
        self._retries = retries
        self._words = words
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._spacing = Spacing(requests_per_minute, sleep=sleep)
        self._sleep = sleep

    def body(self, prompt: str, settings: Mapping[str, Any]) -> dict[str, Any]:
        """What is sent to ask for one answer to `prompt`."""
        if self._chat:
            return {"model": self._model, "messages": [{"role": "user", "content": prompt}], **settings}
        return {"model": self._model, "prompt": prompt, **settings}

    def ask(self, body: Mapping[str, Any]) -> Answer:
        """Raises UserError when the server refuses, or still does not answer after the last retry."""
        answer = self._post(json.dumps(body).encode())
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if self._chat else choice["text"]
            usage = answer.get("usage") or {}
            return Answer(
                text or "",
                choice["finish_reason"] != "length",
                _count(usage.get("prompt_tokens")),
                _count(usage.get("completion_tokens")),
            )
        except (LookupError, TypeError, AttributeError):
            raise UserError(
                f"{self._endpoint} answers in another form than OpenAI's: {_short(json.dumps(answer))}; set "
                f"{self._words.node}.url to an OpenAI-compatible server, up to /v1."
            ) from None

    def check(self) -> None:
        """One look, with no model asked. Raises UserError where nobody answers, or the key is refused."""
        try:
            self._opener.open(self._request(f"{self._url}/models"), timeout=_PROBE_TIMEOUT_S).close()
        except urllib.error.HTTPError as error:
            problem = f"answers {error.code}: {self._without_key(error.read().decode(errors='replace'))}"
            if error.code in (401, 403):
                raise UserError(f"{self._url}/models {problem}. {self._remedy(error.code)}") from None
        except (OSError, HTTPException, ValueError) as error:
            raise UserError(
                f"{self._url} does not answer ({self._reason(error)}); start the server, or change "
                f"{self._words.node}.url."
            ) from None

    def _post(self, body: bytes) -> Any:
        for attempt in range(self._retries + 1):
            problem, pause_s = "", 0.0
            self._spacing.wait()
            try:
                with self._opener.open(self._request(self._endpoint, body), timeout=self._timeout_s) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                problem = f"answers {error.code}: {self._without_key(error.read().decode(errors='replace'))}"
                if error.code not in _AGAIN:
                    raise UserError(f"{self._endpoint} {problem}. {self._remedy(error.code)}") from None
                pause_s = _seconds(error.headers.get("Retry-After"))
            except (OSError, HTTPException) as error:  # no connection, or it broke, or nothing came in time
                problem = f"does not answer ({self._reason(error)})"
            except ValueError:
                problem = "answers with something that is no JSON"
            if attempt < self._retries:
                growing = _FIRST_PAUSE_S * 2**attempt * random.uniform(0.75, 1.25)  # not all requests at once again
                self._sleep(min(max(growing, pause_s), _LONGEST_PAUSE_S))
        raise UserError(
            f"{self._endpoint} {problem}, after {self._retries + 1} tries. Start it again, or change "
            f"{self._words.node}.url, timeout_s or retries; {self._words.resumes}."
        )

    def _request(self, url: str, body: bytes | None = None) -> urllib.request.Request:
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return urllib.request.Request(url, body, headers)

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f"Put its key into the environment variable {KEY}."
        if status == 404 or 300 <= status < 400:
            node = self._words.node
            return f"Check {node}.url (up to and with /v1), {node}.model and chat."
        return self._words.refused

    def _reason(self, error: Exception) -> str:
        return self._without_key(str(getattr(error, "reason", None) or error))

    def _without_key(self, text: str) -> str:
        """What a server said; some repeat the key in their refusal."""
        key = os.environ.get(KEY)
        return _short(text.replace(key, "***") if key else text)


def in_parallel(work: Callable[[Item], Result], items: Iterable[Item], parallel: int) -> list[Result]:
    """`work` of each item, in their order, `parallel` of them under way at a time.

    After an error no further item is begun; it is raised once those under way are done.
    """
    with ThreadPoolExecutor(parallel) as threads:
        return list(threads.map(work, items))  # which drops what is not begun when it is left early


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _count(tokens: Any) -> int | None:
    return tokens if isinstance(tokens, int) and not isinstance(tokens, bool) and tokens >= 0 else None


def _seconds(retry_after: str | None) -> float:
    """The pause that a server asks for; 0 where it asks for none, or names a date."""
    try:
        return max(float(retry_after or 0), 0.0)
    except ValueError:
        return 0.0

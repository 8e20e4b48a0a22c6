"""A writer behind an OpenAI-compatible server: vLLM, llama.cpp, OpenAI itself.

The key that a server may ask for is read from OPENAI_API_KEY and goes nowhere but into the request's header.
"""

from __future__ import annotations

import json
import os
import random
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from http.client import HTTPException
from typing import TYPE_CHECKING, Any

from rlhf.errors import UserError
from rlhf.self_instruct.records import Completion, cut_at
from rlhf.tracking import Progress, progress

if TYPE_CHECKING:
    from rlhf.config import SelfInstructServerConfig

KEY = "OPENAI_API_KEY"
_AGAIN = (408, 409, 425, 429, 500, 502, 503, 504, 529)  # statuses that may pass
_FIRST_PAUSE_S = 1.0
_LONGEST_PAUSE_S = 60.0
_STOPS = 4  # OpenAI takes no more


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    """A redirect is an error: urllib would carry the key to wherever it points, and turn a POST into a GET."""

    def redirect_request(self, *arguments: Any, **keywords: Any) -> None:
        return None


class Server:
    """self_instruct.server.url's model; `parallel` requests are under way at a time.

    sleep: what a pause is made with.
    """

    def __init__(
        self, config: SelfInstructServerConfig, *, bars: bool = True, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        assert config.url is not None
        self._config = config
        self._endpoint = f"{config.url.rstrip('/')}/{'chat/completions' if config.chat else 'completions'}"
        self._opener = urllib.request.build_opener(_NoRedirects)
        self._bars = bars
        self._sleep = sleep

    @property
    def continues(self) -> bool:
        return not self._config.chat

    def fits(self, prompt: str, max_tokens: int) -> bool:
        """True: the server knows its model's context, and says so when it is too short."""
        return True

    def complete(
        self, prompts: list[str], *, max_tokens: int, temperature: float, stop: list[str], seed: int, doing: str
    ) -> list[Completion]:
        """Raises UserError when the server refuses, or still does not answer after the last retry."""
        settings = {"max_tokens": max_tokens, "temperature": temperature, "stop": stop[:_STOPS]}

        def one(place: int) -> Completion:
            completion = self._one({**self._asked(prompts[place]), **settings, "seed": seed + place})
            text, stopped = cut_at(completion.text, stop)
            bar.update()
            return Completion(text, stopped or completion.finished)

        bar: Progress[None]
        with progress(len(prompts), doing, "response", self._bars, leave=False) as bar:
            threads = ThreadPoolExecutor(self._config.parallel)
            try:
                return list(threads.map(one, range(len(prompts))))
            finally:
                threads.shutdown(cancel_futures=True)

    def _asked(self, prompt: str) -> dict[str, Any]:
        if self._config.chat:
            return {"model": self._config.model, "messages": [{"role": "user", "content": prompt}]}
        return {"model": self._config.model, "prompt": prompt}

    def _one(self, body: Mapping[str, Any]) -> Completion:
        answer = self._post(json.dumps(body).encode())
        try:
            choice = answer["choices"][0]
            text = choice["message"]["content"] if self._config.chat else choice["text"]
            return Completion(text or "", choice["finish_reason"] != "length")
        except (LookupError, TypeError):
            raise UserError(
                f"{self._endpoint} answers in another form than OpenAI's: {_short(json.dumps(answer))}; set "
                "self_instruct.server.url to an OpenAI-compatible server, up to /v1."
            ) from None

    def _post(self, body: bytes) -> Any:
        for attempt in range(self._config.retries + 1):
            problem, pause_s = "", 0.0
            try:
                with self._opener.open(self._request(body), timeout=self._config.timeout_s) as answer:
                    return json.load(answer)
            except urllib.error.HTTPError as error:
                problem = f"answers {error.code}: {self._without_key(error.read().decode(errors='replace'))}"
                if error.code not in _AGAIN:
                    raise UserError(f"{self._endpoint} {problem}. {self._remedy(error.code)}") from None
                pause_s = _seconds(error.headers.get("Retry-After"))
            except (OSError, HTTPException) as error:  # no connection, or it broke, or nothing came in time
                problem = f"does not answer ({self._without_key(str(getattr(error, 'reason', None) or error))})"
            except ValueError:
                problem = "answers with something that is no JSON"
            if attempt < self._config.retries:
                growing = _FIRST_PAUSE_S * 2**attempt * random.uniform(0.75, 1.25)  # not all requests at once again
                self._sleep(min(max(growing, pause_s), _LONGEST_PAUSE_S))
        raise UserError(
            f"{self._endpoint} {problem}, after {self._config.retries + 1} tries. Start it again, or change "
            "self_instruct.server.url, timeout_s or retries; the same command goes on from the last whole round."
        )

    def _request(self, body: bytes) -> urllib.request.Request:
        key = os.environ.get(KEY)
        headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key else {})
        return urllib.request.Request(self._endpoint, body, headers)

    def _remedy(self, status: int) -> str:
        if status in (401, 403):
            return f"Put its key into the environment variable {KEY}."
        if status == 404 or 300 <= status < 400:
            return "Check self_instruct.server.url (up to and with /v1), self_instruct.server.model and chat."
        return (
            "If a prompt is too long for it, lower self_instruct.seed_examples, instance_examples, instruction_tokens "
            "or instance_tokens."
        )

    def _without_key(self, text: str) -> str:
        """What a server said; some repeat the key in their refusal."""
        key = os.environ.get(KEY)
        return _short(text.replace(key, "***") if key else text)


def _short(text: str) -> str:
    text = " ".join(text.split())
    return text if len(text) <= 300 else f"{text[:300]}..."


def _seconds(retry_after: str | None) -> float:
    """The pause that a server asks for; 0 where it asks for none, or names a date."""
    try:
        return max(float(retry_after or 0), 0.0)
    except ValueError:
        return 0.0

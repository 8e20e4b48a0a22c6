"""A writer behind an OpenAI-compatible server: rlhf/runtime/openai_server.py."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlhf.runtime.openai_server import OpenAIServer, Words, in_parallel
from rlhf.runtime.progress import Progress, progress
from rlhf.self_instruct.records import Completion, cut_at

if TYPE_CHECKING:
    from rlhf.config import SelfInstructServerConfig

_STOPS = 4  # OpenAI takes no more
_WORDS = Words(
    node="self_instruct.server",
    resumes="the same command goes on from the last whole round",
    refused="If a prompt is too long for it, lower self_instruct.seed_examples, instance_examples, instruction_tokens "
    "or instance_tokens.",
)


class Server:
    """self_instruct.server.url's model; `parallel` requests are under way at a time.

    sleep: what a pause is made with.
    """

    def __init__(
        self, config: SelfInstructServerConfig, *, bars: bool = True, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        assert config.url is not None
        assert config.model is not None
        self._config = config
        self._server = OpenAIServer(
            config.url,
            config.model,
            chat=config.chat,
            timeout_s=config.timeout_s,
            retries=config.retries,
            words=_WORDS,
            sleep=sleep,
        )
        self._bars = bars

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
            answer = self._server.ask(self._server.body(prompts[place], {**settings, "seed": seed + place}))
            text, stopped = cut_at(answer.text, stop)
            bar.update()
            return Completion(text, stopped or answer.finished)

        bar: Progress[None]
        with progress(len(prompts), doing, "response", self._bars, leave=False) as bar:
            return in_parallel(one, range(len(prompts)), self._config.parallel)

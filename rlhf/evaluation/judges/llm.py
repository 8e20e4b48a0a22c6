"""A language model compares each candidate's response with the baseline's, shown in both orders.

As arXiv:2306.05685, section 3.4, advises, verdicts that differ between the orders are ties; they are counted. An answer
that cannot be read is counted too, and its prompt has no verdict.
"""

from __future__ import annotations

import itertools
import logging
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from rlhf.config import LLMJudgeConfig
from rlhf.data.records import Prompt
from rlhf.errors import UserError
from rlhf.evaluation.judges.judge import Verdicts
from rlhf.evaluation.judges.llm_cache import LLMCache, key_of
from rlhf.evaluation.judges.llm_prompt import Choice, conversation, load_template, parse, render
from rlhf.runtime.openai_server import Answer, OpenAIServer, Words, in_parallel
from rlhf.runtime.progress import Progress, progress

log = logging.getLogger("rlhf")

NAME = "llm"
_POINTS_OF_FIRST = {Choice.first: 1.0, Choice.tie: 0.5, Choice.second: 0.0}  # of the response that is shown first
_WORDS = Words(
    node="judge.llm",
    resumes="answers that came are kept, and the same command asks for the others alone",
    refused="If a comparison is too long for it, lower rollout.max_new_tokens, or serve it with a longer context; if "
    "it does not take a setting, see judge.llm.limit_name and judge.llm.temperature=null.",
)


@dataclass(frozen=True)
class Judged:
    """What the judge said of every candidate, and what it took."""

    verdicts: dict[str, Verdicts]  # by candidate; the baseline ties with itself
    answers: list[dict[str, Any]]  # rows of judge_llm.jsonl
    usage: dict[str, Any]  # llm_judge of report.json


@dataclass(frozen=True)
class _Said:
    """One request and what came of it."""

    key: str
    answer: Answer
    cached: bool
    choice: Choice | None  # None: it could not be read


class LLMJudge:
    """judge.llm's model.

    seed:  sent where judge.llm.temperature is above 0.
    sleep: what a pause is made with.
    """

    def __init__(
        self, config: LLMJudgeConfig, *, seed: int, bars: bool = True, sleep: Callable[[float], None] = time.sleep
    ) -> None:
        assert config.url is not None
        assert config.model is not None
        self._config = config
        self._template = load_template(config.prompt)
        self._cache = LLMCache(config.cache)
        self._settings: dict[str, Any] = {config.limit_name: config.max_tokens}
        if config.temperature is not None:
            self._settings["temperature"] = config.temperature
        if config.temperature:  # a few servers take no seed; without sampling it would change nothing
            self._settings["seed"] = seed
        self._server = OpenAIServer(
            config.url,
            config.model,
            chat=config.chat,
            timeout_s=config.timeout_s,
            retries=config.retries,
            words=_WORDS,
            requests_per_minute=config.requests_per_minute,
            sleep=sleep,
        )
        self._bars = bars

    def check(self) -> None:
        """Raises UserError, before candidates spend time on answers, where no server answers.

        With answers in the cache it may not be needed any more, which only warns.
        """
        try:
            self._server.check()
        except UserError as error:
            if self._cache.empty:
                raise
            log.warning("%s Going on with the answers in %s, as far as they go.", error, self._cache.folder)

    def compare(self, prompts: Sequence[Prompt], responses: Mapping[str, Sequence[str]], baseline: str) -> Judged:
        """Every candidate's responses against the baseline's. Raises UserError where the server refuses or is gone.

        responses: by candidate, in the order of the prompts.
        """
        asked: dict[tuple[str, int], tuple[dict[str, Any], dict[str, Any]]] = {}
        for (name, texts), i in itertools.product(responses.items(), range(len(prompts))):
            ours, theirs = texts[i], responses[baseline][i]
            if ours != theirs:
                asked[name, i] = (self._body(prompts[i], ours, theirs), self._body(prompts[i], theirs, ours))
        said = self._ask([body for both in asked.values() for body in both])
        pairs = {place: (said[key_of(one)], said[key_of(other)]) for place, (one, other) in asked.items()}
        return Judged(
            {name: _verdicts([pairs.get((name, i)) for i in range(len(prompts))]) for name in responses},
            [
                _row(prompts[i], name, (name, baseline)[turn], answer)
                for (name, i), pair in pairs.items()
                for turn, answer in enumerate(pair)
            ],
            self._usage(list(said.values())),
        )

    def _body(self, prompt: Prompt, response_a: str, response_b: str) -> dict[str, Any]:
        return self._server.body(render(self._template, prompt, response_a, response_b), self._settings)

    def _ask(self, bodies: Sequence[dict[str, Any]]) -> dict[str, _Said]:
        """What came of each request, by its key; candidates that say the same are asked about once."""
        unique = {key_of(body): body for body in bodies}

        def one(key: str) -> _Said:
            answer = self._cache.find(key)
            cached = answer is not None
            if answer is None:
                answer = self._server.ask(unique[key])
                self._cache.keep(key, unique[key], answer)
            bar.update()
            return _Said(key, answer, cached, parse(answer.text) if answer.finished else None)

        bar: Progress[None]
        with progress(len(unique), f"{NAME} judge", "answer", self._bars) as bar:
            return {said.key: said for said in in_parallel(one, unique, self._config.parallel)}

    def _usage(self, said: Sequence[_Said]) -> dict[str, Any]:
        config = self._config
        fresh = [one.answer for one in said if not one.cached]
        counted = [
            (answer.prompt_tokens, answer.completion_tokens)
            for answer in fresh
            if answer.prompt_tokens is not None and answer.completion_tokens is not None
        ]
        read, written = sum(tokens for tokens, _ in counted), sum(tokens for _, tokens in counted)
        priced = (config.input_price > 0 or config.output_price > 0) and len(counted) == len(fresh)
        return {
            "model": config.model,
            "url": config.url,
            "requests": len(fresh),
            "cached": len(said) - len(fresh),
            "prompt_tokens": read,
            "completion_tokens": written,
            "requests_without_usage": len(fresh) - len(counted),
            "cost": (read * config.input_price + written * config.output_price) / 1e6 if priced else None,
            "parse_failures": sum(one.choice is None for one in said),
        }


def _verdicts(pairs: Sequence[tuple[_Said, _Said] | None]) -> Verdicts:
    """pairs: a prompt each, with the candidate shown first and then second; None: identical responses."""
    points = [(0.5, 0.5) if pair is None else _points(*pair) for pair in pairs]
    choices = [[] if pair is None else [said.choice for said in pair] for pair in pairs]
    readable = [[] if None in both else both for both in choices]
    return Verdicts(
        wins=[one if one == other else math.nan if math.isnan(one + other) else 0.5 for one, other in points],
        inconsistent=[one != other and not math.isnan(one + other) for one, other in points],
        failures=[both.count(None) for both in choices],
        first=[both.count(Choice.first) for both in readable],
        decided=[len(both) - both.count(Choice.tie) for both in readable],
        identical=[pair is None for pair in pairs],
    )


def _points(shown_first: _Said, shown_second: _Said) -> tuple[float, float]:
    """The candidate's, by the answer to each order; NaN where it cannot be read."""
    one, other = (
        math.nan if said.choice is None else _POINTS_OF_FIRST[said.choice] for said in (shown_first, shown_second)
    )
    return one, 1 - other


def _row(prompt: Prompt, candidate: str, shown_first: str, said: _Said) -> dict[str, Any]:
    return {
        "id": prompt.id,
        "candidate": candidate,
        "shown_first": shown_first,
        "verdict": None if said.choice is None else said.choice.value,
        "answer": said.answer.text,
        "finished": said.answer.finished,
        "cached": said.cached,
        "prompt_tokens": said.answer.prompt_tokens,
        "completion_tokens": said.answer.completion_tokens,
        "request": said.key,
    }


def annotation_rows(
    prompts: Sequence[Prompt],
    responses: Mapping[str, Sequence[str]],
    verdicts: Mapping[str, Verdicts],
    *,
    baseline: str,
    annotator: str,
) -> list[dict[str, Any]]:
    """Verdicts as AlpacaEval writes them: the baseline is output_1; preference 1, 2, 1.5 for a tie, null for none."""
    return [
        {
            "instruction": conversation(prompt),
            "output_1": responses[baseline][i],
            "generator_1": baseline,
            "output_2": responses[name][i],
            "generator_2": name,
            "annotator": annotator,
            "preference": None if math.isnan(verdicts[name].wins[i]) else 1 + verdicts[name].wins[i],
        }
        for name in responses
        if name != baseline
        for i, prompt in enumerate(prompts)
    ]


def usage_line(usage: Mapping[str, Any]) -> str:
    """What the judge took, in one line."""
    parts = [f"{usage['requests']} requests, {usage['cached']} answers from the cache"]
    if usage["requests"] > usage["requests_without_usage"]:
        parts.append(f"{usage['prompt_tokens']} tokens read and {usage['completion_tokens']} written")
    if usage["requests_without_usage"]:
        parts.append(f"{usage['requests_without_usage']} requests whose tokens the server does not count")
    if usage["cost"] is not None:
        parts.append(f"${usage['cost']:.4f}")
    parts.append(f"{usage['parse_failures']} answers that end in no verdict")
    return f"LLM judge {usage['model']} at {usage['url']}: {', '.join(parts)}."

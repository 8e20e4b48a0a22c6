"""What Self-Instruct is made of: instances, seed tasks, and what a model wrote."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Instance:
    """One use of an instruction; `input` is "" where the instruction needs none."""

    input: str
    output: str


@dataclass(frozen=True)
class SeedTask:
    """A task that a person wrote."""

    instruction: str
    is_classification: bool  # its answer is one of a small fixed set
    instances: tuple[Instance, ...]  # one or more


@dataclass(frozen=True)
class Completion:
    text: str  # without the stop string
    finished: bool  # False: cut at the limit of tokens


class Writer(Protocol):
    """Who completes prompts: a model in this process, or a server."""

    @property
    def continues(self) -> bool:
        """Whether a completion goes on where its prompt ends; False for a chat model, which answers it."""
        ...

    def fits(self, prompt: str, max_tokens: int) -> bool:
        """Whether the prompt and a completion fit the model's context, as far as that is known."""
        ...

    def complete(
        self, prompts: list[str], *, max_tokens: int, temperature: float, stop: list[str], seed: int, doing: str
    ) -> list[Completion]:
        """One completion a prompt, in their order, cut before the first of `stop`. `doing` names the work for a bar."""
        ...


def cut_at(text: str, stop: list[str]) -> tuple[str, bool]:
    """The text before the first of the stop strings, and whether there was one."""
    ends = [place for place in (text.find(string) for string in stop) if place >= 0]
    return (text[: min(ends)], True) if ends else (text, False)

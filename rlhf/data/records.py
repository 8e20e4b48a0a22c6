"""What every dataset becomes: four kinds of record, immutable, free of any tokenizer."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol, overload, runtime_checkable


class Role(Enum):
    system = "system"
    user = "user"
    assistant = "assistant"


class Split(Enum):
    train = "train"
    evaluation = "evaluation"


class BadRowError(Exception):
    """What is wrong with a row, as the end of a sentence that begins with its file and number.

    remedy: what the person who brought it can do, as the sentence goes on.
    """

    def __init__(self, problem: str, remedy: str = "mend the row") -> None:
        super().__init__(problem)
        self.remedy = remedy


@dataclass(frozen=True)
class Message:
    role: Role
    content: str
    input: str = ""  # the end of `content` where the data sets it apart from the instruction (Alpaca's `input`)


@dataclass(frozen=True)
class Prompt:
    """A conversation that ends where the assistant is to speak."""

    id: str  # unique in its dataset, stable over runs: "tldr:1234", "sandbox:sort:17"; a reader may leave it ""
    messages: tuple[Message, ...]
    task: str = ""  # family, for tables by task; "" when the data has none
    details: Mapping[str, Any] = field(default_factory=dict)  # what a gold judge needs; JSON values only
    user: str = ""  # who wrote it, where the data says: for caps per user and splits by user
    split: Split | None = None  # where the data says so; None: by a hash


@dataclass(frozen=True)
class Demonstration:
    prompt: Prompt
    response: str


@dataclass(frozen=True)
class Ranking:
    """K completions of one prompt; `ranks[i]` is completion i's place, 0 best, equal numbers are ties."""

    prompt: Prompt
    completions: tuple[str, ...]
    ranks: tuple[int, ...]
    margins: tuple[float, ...] = ()  # worth of each completion on the labeler's scale; empty when the data has none
    gold_scores: tuple[float, ...] = ()  # noise-free scores where they are known (the sandbox); else empty


@dataclass(frozen=True)
class Document:
    """Plain text, for pretraining and ptx."""

    text: str


@dataclass(frozen=True)
class MultipleChoice:
    """An item of a benchmark: which option goes on from the context. Nothing is trained on it."""

    context: str
    options: tuple[str, ...]  # as they follow the context, with the space between
    answer: int  # place of the right option
    task: str = ""  # family, for tables by task; "" when the data has none


Record = Demonstration | Ranking | Prompt | Document


@overload
def prompt_of(record: Demonstration | Ranking | Prompt) -> Prompt: ...
@overload
def prompt_of(record: Document) -> None: ...
def prompt_of(record: Record) -> Prompt | None:
    """A record's prompt, itself when it is one; None for a document."""
    if isinstance(record, Document):
        return None
    return record if isinstance(record, Prompt) else record.prompt


Sampler = Callable[[Sequence[Prompt], Sequence[int]], list[list[str]]]
"""Responses from the current SFT model: prompts and how many for each -> one list of texts a prompt."""


class NeedsSamplerError(Exception):
    """There are prompts alone, and what an SFT model writes is yet to be ranked."""


def no_sampler(prompts: Sequence[Prompt], counts: Sequence[int]) -> list[list[str]]:
    """The `Sampler` of those who want the rankings that are there already. Raises NeedsSamplerError."""
    raise NeedsSamplerError


class DataSource(Protocol):
    """Where records come from. Every call is deterministic: same config, same seed, same records in the same order."""

    def demonstrations(self, split: Split) -> Sequence[Demonstration]: ...

    def rankings(self, split: Split, sample: Sampler) -> Sequence[Ranking]:
        """Ranked completions; a source that holds rankings ignores `sample`, the sandbox labels what it returns."""
        ...

    def prompts(self, split: Split) -> Sequence[Prompt]: ...

    def texts(self, split: Split) -> Sequence[str]:
        """Plain documents, for pretraining and ptx."""
        ...

    @property
    def has_texts(self) -> bool:
        """Whether `texts` are documents of their own, rather than demonstrations written out."""
        ...

    @property
    def gold(self) -> Callable[[Prompt, str], float] | None:
        """The noise-free score of a response, from 0 (worst) to 1; None when the source has no such judge."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """What was read: rows by kind, sha256 of the source (file bytes, or the sandbox's config); JSON values."""
        ...


@runtime_checkable
class HasBenchmark(Protocol):
    """A data source that can ask what pretraining taught."""

    def benchmark(self) -> Sequence[MultipleChoice]:
        """The same items at every call, whatever the seed: none of what they ask is trained on in this form."""
        ...

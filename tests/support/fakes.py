"""A stage's surroundings without the pipeline: a tracker that remembers, records from lists, a context."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.config import Config
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role, Sampler, Split
from rlhf.runtime.folder import StageFolder


@dataclass
class MemoryTracker:
    logged: list[tuple[int, dict[str, float]]] = field(default_factory=list)
    sampled: list[tuple[int, list[Mapping[str, Any]]]] = field(default_factory=list)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        self.logged.append((step, dict(metrics)))

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        self.sampled.append((step, list(rows)))

    def position(self) -> dict[str, int]:
        return {"metrics": len(self.logged), "samples": len(self.sampled)}

    def rewind(self, step: int, position: Mapping[str, int] | None = None) -> None:
        lines = position or {}
        self.logged = [entry for entry in self.logged if entry[0] <= step][: lines.get("metrics")]
        self.sampled = [entry for entry in self.sampled if entry[0] <= step][: lines.get("samples")]

    def values(self, name: str) -> list[float]:
        return [metrics[name] for _, metrics in self.logged if name in metrics]


@dataclass
class ListSource:
    """Records from lists; rankings may be a function of the sampler."""

    train_demonstrations: list[Demonstration] = field(default_factory=list)
    held_out_demonstrations: list[Demonstration] = field(default_factory=list)
    train_rankings: list[Ranking] | Callable[[Sampler], list[Ranking]] = field(default_factory=list)
    held_out_rankings: list[Ranking] | Callable[[Sampler], list[Ranking]] = field(default_factory=list)
    documents: list[str] = field(default_factory=list)
    gold: None = None

    def demonstrations(self, split: Split) -> list[Demonstration]:
        return self.train_demonstrations if split == Split.train else self.held_out_demonstrations

    def rankings(self, split: Split, sample: Sampler) -> list[Ranking]:
        chosen = self.train_rankings if split == Split.train else self.held_out_rankings
        return chosen if isinstance(chosen, list) else chosen(sample)

    def prompts(self, split: Split) -> list[Prompt]:
        return [demonstration.prompt for demonstration in self.demonstrations(split)]

    def texts(self, split: Split) -> list[str]:
        return self.documents

    @property
    def has_texts(self) -> bool:
        return bool(self.documents)

    def fingerprint(self) -> dict[str, Any]:
        return {"source": "lists"}


@dataclass
class FakeContext:
    config: Config
    folder: StageFolder
    parents: dict[str, Path]
    tracker: MemoryTracker
    data: ListSource
    resume: bool = False


def make_context(path: Path, config: Config, parents: Mapping[str, str], data: ListSource) -> Any:
    path.mkdir(parents=True, exist_ok=True)
    folders = {name: Path(parent) for name, parent in parents.items()}
    return FakeContext(config, StageFolder(path), folders, MemoryTracker(), data)


def prompt(text: str, number: int = 0) -> Prompt:
    return Prompt(f"test:{number}", (Message(Role.user, text),))

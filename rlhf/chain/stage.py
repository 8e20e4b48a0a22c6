"""One stage's own declaration: all that the runner, the sweep and the manifest need to know of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import Config, DataConfig, StageName

if TYPE_CHECKING:
    from rlhf.chain.parents import Search
    from rlhf.data.records import DataSource


@dataclass(frozen=True)
class Keys:
    """A node of the config, or one key, without some of what is under it."""

    node: str
    but: tuple[str, ...] = ()

    def hold(self, key: str) -> bool:
        """Whether `key` is one of them."""
        return _under(key, self.node) and not any(_under(key, other) for other in self.but)


def _under(key: str, node: str) -> bool:
    return key == node or key.startswith(f"{node}.")


@dataclass(frozen=True)
class Read:
    """Something that a stage reads beside its parents, by which its manifest knows it again."""

    fingerprint: Callable[[Config, DataSource], Any]  # what JSON holds; None where this config reads none
    changed: str  # what a refusal says when it is another one


def own_data(config: Config) -> DataConfig:
    return config.data


def own_seed(config: Config) -> int:
    return config.seed


def nothing(config: Config) -> None:
    """Needs nothing that could be missing."""


def no_prompts(role: str) -> str | None:
    """Gives none of its parents prompts."""
    return None


def data_fingerprint(config: Config, source: DataSource) -> dict[str, Any]:
    return dict(source.fingerprint())


DATA_READ = Read(data_fingerprint, "other data")


@dataclass(frozen=True)
class Stage:
    """What is round `stages/<name>.py`, whose `run(context)` does the work and returns the final metrics."""

    name: StageName
    decided_by: tuple[Keys, ...]  # what of the config decides the result; the rest may change between two starts
    parents: Callable[[Search], dict[str, Path]]  # models it starts from, by role; what is missing is a UserError
    named: tuple[str, ...] = ()  # keys that name a parent outright; its role is what follows the first dot
    reads: Mapping[str, Read] = field(default_factory=lambda: {"data": DATA_READ})  # by its name in the manifest
    needs: Callable[[Config], None] = nothing  # UserError, before anything loads, for what it would miss
    data: Callable[[Config], DataConfig] = own_data
    seed: Callable[[Config], int] = own_seed
    headline: tuple[str, ...] = ()  # metrics in its last line, as far as there are any
    makes: tuple[str, str] = ("model", "model")  # what to call it at a chain's end, and where in the folder it lies
    nodes: tuple[str, ...] = ()  # of the config that are about this stage, beside the one of its own name
    apart: bool = False  # from the chain: of a sweep, only what decides its result reaches it
    derived: bool = False  # made of finished stages alone, so that another one may take its place without a loss
    gathers: bool = False  # says again all that it has said before: its old folder need not be kept aside
    work: str | None = None  # a file of its own that holds what it can go on from, beside checkpoints
    tokens_of: str | None = None  # the parent whose tokenizer and chat template it works with
    prompted_as: Callable[[str], str | None] = no_prompts  # how a parent that reads prompts is typed, by its role

    def decides(self, key: str) -> bool:
        """Whether the value of `key` decides what the stage makes."""
        return any(keys.hold(key) for keys in self.decided_by)

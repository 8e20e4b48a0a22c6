"""Seed tasks: a file's, in the format of Self-Instruct's seed_tasks.jsonl, or the sandbox's own.

A line is {"instruction": ..., "instances": [{"input": ..., "output": ...}, ...], "is_classification": ...}; `input` may
be empty or missing, other keys are not read. The published 175 are yizhongw/self-instruct, data/seed_tasks.jsonl.
"""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.sandbox.families import HELD_OUT_PHRASINGS, TRAINING_FAMILIES
from rlhf.sandbox.tasks import Family
from rlhf.sandbox.world import World
from rlhf.self_instruct.records import Instance, SeedTask

SANDBOX_TASKS_PER_FAMILY = 4
SANDBOX_INSTANCES = 2  # where the instruction stands apart from what it is applied to
_CLASSIFICATION_FAMILIES = ("sentiment", "topic", "entail")
_GIVEN = ("{text}", "{words}")  # what an instruction is applied to, by the name of its slot


def load_seeds(path: str | None, world_seed: int) -> list[SeedTask]:
    """The tasks of the file, or the sandbox's where `path` is None. Raises UserError for a file that cannot be used."""
    return sandbox_seeds(world_seed) if path is None else read_seeds(Path(path).expanduser())


def seeds_hash(seeds: Sequence[SeedTask]) -> str:
    """sha256 over everything that the seeds decide."""
    return hashlib.sha256(repr(list(seeds)).encode("utf-8", "surrogatepass")).hexdigest()


def read_seeds(path: Path) -> list[SeedTask]:
    """Every task of a JSONL file. Raises UserError for a missing or empty file, and for a line that holds no task."""
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"The seed tasks {path} cannot be read ({error}); set self_instruct.seeds=FILE.") from None
    seeds = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            seeds.append(_seed_task(json.loads(line)))
        except ValueError as problem:  # json.JSONDecodeError is one
            raise UserError(
                f"{path}, line {number}: {problem}; a seed task is a JSON object with `instruction` and `instances`, "
                "each with `output`. Mend the line, or change self_instruct.seeds."
            ) from None
    if not seeds:
        raise UserError(f"{path} holds no seed tasks; set self_instruct.seeds to a file with one a line.")
    return seeds


def _seed_task(row: Any) -> SeedTask:
    """Raises ValueError for what is wrong with a row."""
    if not isinstance(row, Mapping):
        raise ValueError("it is no JSON object")
    instances = row.get("instances")
    if not isinstance(instances, list) or not instances:
        raise ValueError("it has no `instances`")
    is_classification = row.get("is_classification", False)
    if not isinstance(is_classification, bool):
        raise ValueError("`is_classification` is neither true nor false")
    return SeedTask(_text(row, "instruction"), is_classification, tuple(_instance(instance) for instance in instances))


def _instance(row: Any) -> Instance:
    if not isinstance(row, Mapping):
        raise ValueError("one of its `instances` is no JSON object")
    given = row.get("input") or ""
    if not isinstance(given, str):
        raise ValueError("an `input` is not text")
    return Instance(given.strip(), _text(row, "output"))


def _text(row: Mapping[str, Any], key: str) -> str:
    value = row.get(key)
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"it has no text under `{key}`")
    return value.strip()


def sandbox_seeds(world_seed: int) -> list[SeedTask]:
    """A few tasks of every family that the sandbox trains on, in training phrasings, answered as a careful writer does.

    Follow-up questions are left out: they mean nothing without the turn before.
    """
    rng = random.Random(f"self_instruct:{world_seed}")
    world = World.from_seed(world_seed)
    families = [family for family in TRAINING_FAMILIES if family.name != "followup"]
    return [task for family in families for task in _family_seeds(family, rng, world)]


def _family_seeds(family: Family, rng: random.Random, world: World) -> Iterator[SeedTask]:
    phrasings = family.phrasings[: len(family.phrasings) - HELD_OUT_PHRASINGS]
    for phrasing in rng.sample(phrasings, SANDBOX_TASKS_PER_FAMILY):
        instruction, slot = _apart(phrasing)
        examples = [family.make(rng, world) for _ in range(SANDBOX_INSTANCES if slot and "{" not in instruction else 1)]
        yield SeedTask(
            instruction.format(**examples[0].slots),
            family.name in _CLASSIFICATION_FAMILIES,
            tuple(Instance(slot.format(**example.slots), family.answer(example.details, rng)) for example in examples),
        )


def _apart(phrasing: str) -> tuple[str, str]:
    """A phrasing without what it is applied to, and the slot of that; ("...", "") where it stands in the middle.

    >>> _apart("Sort from a to z: {words}")
    ('Sort from a to z:', '{words}')
    >>> _apart("Here is a list: {words}. Sort the words from a to z.")
    ('Here is a list: {words}. Sort the words from a to z.', '')
    """
    for slot in _GIVEN:
        if phrasing.endswith(slot):
            return phrasing.removesuffix(slot).strip(), slot
        if phrasing.startswith(slot + " "):
            return phrasing.removeprefix(slot).strip(), slot
    return phrasing, ""

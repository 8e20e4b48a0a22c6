"""What decides a stage's result, as its manifest keeps it, and how two results' inputs differ, in words."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.chain.stage import Stage
from rlhf.config import Config
from rlhf.config.keys import flatten, show
from rlhf.data.records import DataSource
from rlhf.errors import UserError
from rlhf.runtime.files import finite
from rlhf.runtime.folder import StageFolder, model_hash


@dataclass(frozen=True)
class Inputs:
    """All that a stage's result depends on. `parents` and `read` are None where they are not known yet."""

    config: dict[str, Any]  # keys that decide the result
    parents: dict[str, str] | None = None  # the hash of each model, by role
    read: dict[str, Any] | None = None  # fingerprints, by their names in the manifest


def deciding_config(config: Config, stage: Stage) -> dict[str, Any]:
    return {key: value for key, value in flatten(config).items() if stage.decides(key)}


def inputs_of(config: Config, stage: Stage, parents: Mapping[str, Path], source: DataSource) -> Inputs:
    return Inputs(
        deciding_config(config, stage),
        {role: model_hash(path) for role, path in parents.items()},
        {name: _as_json(read.fingerprint(config, source)) for name, read in stage.reads.items()},
    )


def _as_json(value: Any) -> Any:
    return json.loads(json.dumps(finite(value), default=str))


def differences(manifest: Mapping[str, Any], stage: Stage, inputs: Inputs) -> list[str]:
    """What differs between the inputs that a manifest names and `inputs`, as far as those are known."""
    defaults = flatten(Config())  # a key that came with a later version had its default's meaning before
    before = {key: defaults[key] for key in inputs.config if key in defaults} | manifest.get("config", {})
    changes = [
        f"{key} {_short(before.get(key))} -> {_short(inputs.config.get(key))}"
        for key in {**before, **inputs.config}
        if before.get(key) != inputs.config.get(key)
    ]
    if inputs.parents is not None:
        old = {role: parent["hash"] for role, parent in manifest.get("parents", {}).items()}
        new = inputs.parents
        changes += [f"another {role} model" for role in {**old, **new} if old.get(role) != new.get(role)]
    if inputs.read is not None:
        changes += [stage.reads[name].changed for name, now in inputs.read.items() if manifest.get(name) != now]
    return changes


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def holds_work(folder: StageFolder, stage: Stage) -> bool:
    """Whether something would be lost with a folder: a finished stage, or what an unfinished one can go on from."""
    own = folder.path / stage.work if stage.work is not None else None
    begun = folder.has_checkpoints or (own is not None and own.exists() and own.stat().st_size > 0)
    return folder.complete or begun


def changed_model(folder: StageFolder, stage: Stage, problem: str) -> UserError:
    return UserError(
        f"{folder.path} is finished, and {problem}; put it back as it was, or make it again from the newest checkpoint "
        f"with run.again=[{stage.name.value}]."
    )


def other_config(folder: StageFolder, changes: Sequence[str]) -> UserError:
    shown = ", ".join(changes[:6]) + (f" and {len(changes) - 6} more" if len(changes) > 6 else "")
    return UserError(
        f"{folder.path} belongs to another config ({shown}); choose a new run with run.name=NAME, adding "
        f"run.parents={folder.path.parent} to start from the stages that are finished there."
    )

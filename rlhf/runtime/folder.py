"""A stage's folder: manifest, checkpoints, and fingerprints of models. Knows files, not models."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.runtime import checkpoints
from rlhf.runtime.files import recover, save_folder_atomic, write_json_atomic

MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".bin")
NOT_FINITE = "not_finite"  # a stage's folder for batches whose loss or gradient was none
_CHECKPOINT = "step"


def model_files(path: Path) -> list[Path]:
    """The files that make a model what it is: weights, config, tokenizer; not READMEs or trainer state."""
    return sorted(
        file
        for file in path.iterdir()
        if file.is_file() and file.suffix in MODEL_FILES and not file.name.startswith(("training_args", "README"))
    )


def hash_folder(path: Path) -> str:
    """sha256 over a model folder's files, names and bytes; the same model anywhere has the same hash."""
    digest = hashlib.sha256()
    for file in model_files(path):
        digest.update(f"{file.name}\0{file.stat().st_size}\0".encode())
        with file.open("rb") as opened:
            while block := opened.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _signature(path: Path) -> dict[str, list[int]]:
    return {file.name: [file.stat().st_size, file.stat().st_mtime_ns] for file in model_files(path)}


def model_hash(path: Path) -> str:
    """`hash_folder`, read from the stage's manifest when the files are untouched since; large models take minutes.

    A hub id stands for itself.
    """
    if not path.is_dir():
        return f"hub:{path}"
    manifest = StageFolder(path.parent).manifest if path.name == "model" else None
    if manifest is not None and "model" in manifest and manifest["model"]["files"] == _signature(path):
        return manifest["model"]["hash"]
    return hash_folder(path)


def describe_model(path: Path) -> dict[str, Any]:
    """What a manifest says of a finished model, so that `model_hash` need not read the weights again."""
    return {"hash": hash_folder(path), "files": _signature(path)}


class StageFolder:
    """One stage's folder, `runs/<run>/<stage>`. Reading needs nothing to exist; writing creates it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.model_dir = path / "model"
        self.checkpoints_dir = path / "checkpoints"
        self.metrics_path = path / "metrics.jsonl"
        self.samples_path = path / "samples.jsonl"
        self.log_path = path / "log.txt"
        self.config_path = path / "config.yaml"
        self.manifest_path = path / "manifest.json"

    @property
    def manifest(self) -> dict[str, Any] | None:
        """The manifest, None when there is none. Raises UserError on one that cannot be read."""
        try:
            data = self.manifest_path.read_bytes()
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            manifest = json.loads(data.decode("utf-8"))
        except ValueError as error:  # no JSON, or no UTF-8, as a torn block is none
            raise UserError(
                f"{self.manifest_path} is damaged ({error}); move {self.path} away, or choose another run.name."
            ) from None
        if not isinstance(manifest, dict):
            raise UserError(
                f"{self.manifest_path} holds no manifest; move {self.path} away, or choose another run.name."
            )
        return manifest

    @property
    def complete(self) -> bool:
        return (self.manifest or {}).get("status") == "complete"

    def write_manifest(self, **updates: Any) -> None:
        """Merges `updates` into the manifest."""
        write_json_atomic(self.manifest_path, {**(self.manifest or {}), **updates})

    def model_problem(self) -> str | None:
        """What is wrong with the model of a finished stage, in words; None where it is as the stage left it.

        Weights are read only where sizes or times are not those of then, as after a copy.
        """
        said = (self.manifest or {}).get("model")
        if said is None:  # a stage that makes none, or one that has not finished
            return None
        if not self.model_dir.is_dir():
            return f"its {self.model_dir.name}/ is gone"
        if said["files"] != _signature(self.model_dir) and said["hash"] != hash_folder(self.model_dir):
            return f"its {self.model_dir.name}/ is no longer what it saved"
        return None

    def tidy(self) -> None:
        """Removes what killed processes were writing when they died, and puts back what one had moved aside.

        Only the owner of the stage's lock may ask.
        """
        recover(self.path)
        recover(self.checkpoints_dir)
        for checkpoint in self.checkpoints_dir.glob("*/"):
            recover(checkpoint)

    @property
    def has_checkpoints(self) -> bool:
        """Whether there is a finished checkpoint, of this project or of a Trainer."""
        return any(self.checkpoints_dir.glob(f"*/{checkpoints.SUMS}"))

    def latest_checkpoint(self) -> tuple[int, Path] | None:
        """The newest undamaged checkpoint and its step, None when there is none."""
        return checkpoints.newest(self.checkpoints_dir, _CHECKPOINT)

    @contextlib.contextmanager
    def checkpoint(self, step: int, *, keep: int) -> Iterator[Path]:
        """Yields a folder that becomes checkpoints/step-`step`, whole or not at all; the newest `keep` stay."""
        with save_folder_atomic(self.checkpoints_dir / f"{_CHECKPOINT}-{step}") as folder:
            yield folder
            checkpoints.seal(folder)
        checkpoints.drop_but_newest(self.checkpoints_dir, _CHECKPOINT, keep)

"""Run folders: manifests, atomic writes, checkpoints and fingerprints. Knows files, not models."""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import math
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf import checkpoints
from rlhf.checkpoints import fsync
from rlhf.errors import UserError

MODEL_FILES = (".safetensors", ".json", ".jinja", ".model", ".txt", ".bin")
NOT_FINITE = "not_finite"  # a stage's folder for batches whose loss or gradient was none
_CHECKPOINT = "step"


def is_disk_full(error: BaseException, path: Path) -> bool:
    """True if `error` came from a full disk (or an exhausted quota) under `path`.

    Libraries hide ENOSPC: safetensors raises its own exception with the system's text in it, and torch.save an
    unrelated RuntimeError, which counts only when the disk really has no room.
    """
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(seen) or "os error 28" in str(seen):
            return True
        seen = seen.__cause__ or seen.__context__
    return isinstance(error, (OSError, RuntimeError)) and not isinstance(error, UserError) and _free_bytes(path) < 65536


def disk_full_error(path: Path, written: int = 0) -> UserError:
    needed = f"it needs more than the {_mib(written)} already written" if written else "it needs more"
    return UserError(
        f"The disk is full: {path} could not be written ({needed}, {_mib(_free_bytes(path))} are free); "
        "free some space and run the same command again, or set run.root to a folder on another disk."
    )


def refused_by_disk(error: OSError, path: Path) -> UserError | None:
    """What to say where a file under `path` cannot be written; None where the error is about something else."""
    ours = error.filename is not None and Path(os.fsdecode(error.filename)).is_relative_to(path.parent)
    if ours and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return UserError(
            f"{error.filename} cannot be written ({error.strerror}); make it writable and run the same command again, "
            "or set run.root to another folder."
        )
    return disk_full_error(path) if is_disk_full(error, path) else None


def _free_bytes(path: Path) -> int:
    while not path.exists() and path != path.parent:
        path = path.parent
    return shutil.disk_usage(path).free


def _mib(size: int) -> str:
    return f"{size / 2**20:.1f} MiB"


def _folder_bytes(path: Path) -> int:
    return sum(file.stat().st_size for file in path.rglob("*") if file.is_file())


def write_text_atomic(path: Path, text: str) -> None:
    """Writes aside and renames: a reader sees the old text or the new, never half. UserError on a full disk."""
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(descriptor, "w", encoding="utf-8") as file:
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        umask = os.umask(0)  # mkstemp makes the file private; a run folder is as readable as any other
        os.umask(umask)
        os.chmod(name, 0o666 & ~umask)
        os.replace(name, path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            os.unlink(name)
        if is_disk_full(error, path):
            raise disk_full_error(path) from error
        raise


def write_json_atomic(path: Path, value: Any) -> None:
    """Writes `value` as standard JSON; numbers that are not finite become null."""
    write_text_atomic(path, json.dumps(finite(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def finite(value: Any) -> Any:
    """The same value with NaN and infinities, which JSON does not have, as None."""
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Mapping):
        return {str(key): finite(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [finite(item) for item in value]
    return value


@contextlib.contextmanager
def save_folder_atomic(path: Path) -> Iterator[Path]:
    """Yields an empty folder beside `path` to write into; on success it takes the place of `path`, whole.

    On an error the folder goes away and what stood at `path` stays. Raises UserError when the disk fills up.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    _recover(path)
    aside = Path(tempfile.mkdtemp(dir=path.parent, prefix=f".{path.name}.new-"))
    os.chmod(aside, path.parent.stat().st_mode & 0o777)
    old = path.parent / f".{path.name}.old"
    try:
        yield aside
        for file in aside.rglob("*"):
            fsync(file)
        fsync(aside)
        if path.exists():
            os.rename(path, old)
        os.rename(aside, path)
    except BaseException as error:
        full = is_disk_full(error, path)
        written = _folder_bytes(aside) if full and aside.exists() else 0
        shutil.rmtree(aside, ignore_errors=True)
        _recover(path)
        if full:
            raise disk_full_error(path, written) from error
        raise
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _recover(path: Path) -> None:
    """Puts back or drops the old folder that a crash between the two renames left aside."""
    old = path.parent / f".{path.name}.old"
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)
    for stale in path.parent.glob(f".{path.name}.new-*"):
        shutil.rmtree(stale, ignore_errors=True)


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
            text = self.manifest_path.read_text(encoding="utf-8")
        except (FileNotFoundError, NotADirectoryError):
            return None
        try:
            manifest = json.loads(text)
        except json.JSONDecodeError as error:
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

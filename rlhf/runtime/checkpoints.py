"""Checkpoints that say whether they are whole: SHA256SUMS, in the format of `sha256sum -c`, is written last."""

from __future__ import annotations

import hashlib
import logging
import os
import shutil
from pathlib import Path

SUMS = "SHA256SUMS"

log = logging.getLogger("rlhf")


def seal(folder: Path) -> None:
    """Put all files of a finished checkpoint on disk, and their checksums beside them."""
    files = _files(folder)
    for path in (*files, folder):
        fsync(path)
    sums = folder / SUMS
    aside = folder / f".{SUMS}"
    aside.write_text("".join(f"{_sha256(path)}  {path.relative_to(folder)}\n" for path in files), encoding="utf-8")
    fsync(aside)
    os.replace(aside, sums)
    fsync(folder)


def damage(folder: Path) -> str | None:
    """What is wrong with a checkpoint, None when it is as it was sealed."""
    sums = folder / SUMS
    if not sums.is_file():
        return f"it has no {SUMS}, so writing it was cut off"
    try:
        lines = sums.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError:
        return f"its {SUMS} is no text"
    if not lines:
        return f"its {SUMS} is empty"
    for line in lines:
        expected, _, name = line.partition("  ")
        path = folder / name
        if not path.is_file():
            return f"{name} is gone"
        if _sha256(path) != expected:
            return f"{name} is not what was written"
    listed = {line.partition("  ")[2] for line in lines}
    unlisted = [name for name in (str(path.relative_to(folder)) for path in _files(folder)) if name not in listed]
    if unlisted:
        return f"its {SUMS} says nothing of {unlisted[0]}"
    return None


def newest(parent: Path, prefix: str) -> tuple[int, Path] | None:
    """The step and folder of the newest undamaged PREFIX-STEP, None without one; a warning for every newer one."""
    for step, folder in reversed(numbered(parent, prefix)):
        what = damage(folder)
        if what is None:
            return step, folder
        log.warning("the checkpoint %s is damaged: %s; going on from the one before it", folder, what)
    return None


def numbered(parent: Path, prefix: str) -> list[tuple[int, Path]]:
    """Every PREFIX-STEP, damaged or not, the newest last."""
    found = [(folder.name.removeprefix(f"{prefix}-"), folder) for folder in parent.glob(f"{prefix}-*")]
    return sorted((int(step), folder) for step, folder in found if step.isdigit())


def drop_but_newest(parent: Path, prefix: str, keep: int) -> None:
    """Delete all sealed ones but the newest `keep`."""
    sealed = [folder for _, folder in numbered(parent, prefix) if (folder / SUMS).exists()]
    for folder in sealed[:-keep]:
        shutil.rmtree(folder, ignore_errors=True)


def fsync(path: Path) -> None:
    """Wait until a file or folder is on disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and path.name not in (SUMS, f".{SUMS}"))


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

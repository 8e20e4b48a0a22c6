"""Files that are whole or not there: atomic writes, and what to say when the disk is full."""

from __future__ import annotations

import contextlib
import errno
import json
import math
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.runtime.checkpoints import fsync


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
    if error.filename is None:
        return disk_full_error(path) if is_disk_full(error, path) else None
    named = Path(os.fsdecode(error.filename))
    ours = named.is_relative_to(path.parent) or path.is_relative_to(named)
    # Where no folder can be made, as under /proc.
    cannot_be = (errno.ENOENT, errno.ENOTDIR, errno.EINVAL, errno.ENAMETOOLONG, errno.ENOTSUP)
    unmade = error.errno in cannot_be and not path.exists()
    if ours and (unmade or error.errno in (errno.EROFS, errno.EACCES, errno.EPERM)):
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
    _put_back(path)
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
        _put_back(path)
        if full:
            raise disk_full_error(path, written) from error
        raise
    fsync(path.parent)
    shutil.rmtree(old, ignore_errors=True)


def _put_back(path: Path) -> None:
    """Puts back or drops the old folder that a crash between the two renames left aside, and half-written new ones."""
    old = path.parent / f".{path.name}.old"
    if old.exists():
        if path.exists():
            shutil.rmtree(old, ignore_errors=True)
        else:
            os.rename(old, path)
    for stale in path.parent.glob(f".{path.name}.new-*"):
        shutil.rmtree(stale, ignore_errors=True)


# What `write_text_atomic` and `save_folder_atomic` call what they write aside, and a killed one leaves behind.
_ASIDE_FILE = re.compile(r"\..+\.[a-z0-9_]{8}")
_ASIDE_FOLDER = re.compile(r"\.(.+)\.(?:old|new-[a-z0-9_]{8})")


def recover(parent: Path) -> None:
    """Undoes what writes into `parent` left when their process was killed. None may be going on."""
    for path in parent.iterdir() if parent.is_dir() else ():
        folder = _ASIDE_FOLDER.fullmatch(path.name)
        if folder is not None and path.is_dir():
            _put_back(parent / folder[1])
        elif _ASIDE_FILE.fullmatch(path.name) and path.is_file():
            path.unlink(missing_ok=True)

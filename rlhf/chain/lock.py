"""One stage's folder, one process at a time."""

from __future__ import annotations

import contextlib
import fcntl
import os
import platform
from collections.abc import Iterator
from pathlib import Path

from rlhf.errors import UserError
from rlhf.runtime import distributed
from rlhf.runtime.folder import StageFolder


@contextlib.contextmanager
def locked(folder: StageFolder, *, wait: bool) -> Iterator[None]:
    """Inside, no other process works on this stage; the lock dies with its owner. Raises UserError where one does.

    wait: wait for it instead, so that jobs of a parallel sweep train a shared stage once.
    """
    with contextlib.ExitStack() as held:
        distributed.from_main(lambda: _take(folder.path.parent / f".{folder.path.name}.lock", folder, held, wait))
        yield


def _take(path: Path, folder: StageFolder, held: contextlib.ExitStack, wait: bool) -> None:
    while True:
        file = held.enter_context(path.open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            if not wait:
                raise UserError(
                    f"{folder.path} is being worked on by {owner}; wait until it is done, or choose another run.name."
                ) from None
            print(f"{folder.path}: {owner} is at work on it; waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        # Who held it has removed it; what counts is the file that stands there now.
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    held.callback(path.unlink, missing_ok=True)

"""What models drew and found likely, kept on disk, so that a comparison costs only what is new in it.

Each value is a file, called by the sha256 of everything that it was made from. Nothing here is ever removed: the folder
can be, at any time, and costs the time to make its values again.
"""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from rlhf.runtime.distributed import from_main, is_main_process
from rlhf.runtime.files import write_text_atomic

log = logging.getLogger("rlhf")

FORMAT = 1  # counts up when the same things would make another value
Value = TypeVar("Value")


class AnswerCache:
    """JSON values by what they were made from, a file each under `folder`; None keeps nothing.

    found, made: how many were there, and how many were not.
    """

    def __init__(self, folder: Path | None) -> None:
        self.folder = folder
        self.found = 0
        self.made = 0

    def remember(self, made_from: Mapping[str, Any] | None, make: Callable[[], Value]) -> Value:
        """`make()`, or the very same value found on disk; a file that is damaged is made again.

        made_from: JSON values, all that `make` depends on; None, where that cannot be said, keeps nothing. Every rank
        calls this, and gets the value.
        """
        if self.folder is None or made_from is None:
            return make()
        key = sha256({"format": FORMAT, **made_from})
        path = self.folder / f"{key}.json"
        found = from_main(lambda: _read(path))
        if found is not None:
            self.found += 1
            return found["value"]
        value = make()
        self.made += 1
        if is_main_process():
            kept = {"made_from": dict(made_from), "sha256": sha256(value), "value": value}
            write_text_atomic(path, json.dumps(kept) + "\n")
        return value


def sha256(value: Any) -> str:
    """Of a JSON value, whatever the order of its keys."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


def _read(path: Path) -> dict[str, Any] | None:
    """What the file holds; None where there is none, or not what was written."""
    try:
        kept: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        whole = kept["sha256"] == sha256(kept["value"])
    except FileNotFoundError:
        return None
    except (ValueError, KeyError, TypeError):
        whole = False
    if not whole:
        log.warning("%s is damaged; it is made again", path)
        return None
    return kept

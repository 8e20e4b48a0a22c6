"""JSON lines: written so that a kill costs no line, read so that half a line is none."""

from __future__ import annotations

import json
import logging
import math
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TextIO

from rlhf.runtime.files import write_text_atomic

log = logging.getLogger("rlhf")


def json_value(value: Any) -> Any:
    """`value` as standard JSON holds it: numbers of any library become plain, non-finite ones None, keys strings."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # torch and numpy, numbers and arrays
        return json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [json_value(item) for item in value]
    return str(value)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl or samples.jsonl; [] when there is no file.

    The last line is left out when it is torn, as a killed process leaves it; any other that is no JSON object, as a
    disk that loses blocks leaves it, with a warning.
    """
    if not path.exists():
        return []
    *lines, rest = path.read_bytes().split(b"\n")
    read = [(number, _object(line)) for number, line in enumerate(lines, start=1) if line.strip()]
    damaged = [number for number, row in read if row is None]
    if damaged:
        log.warning("%s: line %d is damaged and left out, %d of %d", path, damaged[0], len(damaged), len(lines))
    return [row for row in (*(row for _, row in read), _object(rest)) if row is not None]


def _object(line: bytes) -> dict[str, Any] | None:
    """The line's JSON object; None where it holds none."""
    try:
        row = json.loads(line.decode("utf-8"))
    except ValueError:  # no JSON, or no UTF-8
        return None
    return row if isinstance(row, dict) else None


def json_line(row: Mapping[str, Any]) -> str:
    """`row` as one line of standard JSON that UTF-8 can hold.

    A lone surrogate, which UTF-8 cannot hold, becomes \\udXXX: the escape JSON itself would use.
    """
    text = json.dumps(json_value(row), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


class JsonLines:
    """A file of JSON lines, each on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: TextIO | None = None

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self._stream is None:
            self._drop_torn_line()
            self._stream = self.path.open("a", encoding="utf-8")
        self._stream.write("".join(json_line(row) for row in rows))
        self._stream.flush()

    def rewind(self, step: int, lines: int | None) -> None:
        self.close()
        if self.path.exists():
            kept = [row for row in read_jsonl(self.path) if row.get("step", math.inf) <= step][:lines]
            if lines is not None and len(kept) < lines:
                log.warning(
                    "%s has lost %d of the %d lines that it had at step %d", self.path, lines - len(kept), lines, step
                )
            write_text_atomic(self.path, "".join(json_line(row) for row in kept))

    @property
    def lines(self) -> int:
        return len(read_jsonl(self.path))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(self.path, data.rfind(b"\n") + 1)

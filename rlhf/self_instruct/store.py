"""The stage's files while the pool grows: rows are appended, and a round counts once its line in rounds.jsonl is whole.

That line holds how long each file then was. Whatever a killed process left behind it is cut off at the next start, so
the files are always those of some number of whole rounds.
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rlhf.errors import UserError
from rlhf.runtime.files import write_text_atomic
from rlhf.runtime.jsonl import json_line

INSTRUCTIONS = "instructions.jsonl"
INSTANCES = "instances.jsonl"
DROPPED = "dropped.jsonl"
ROUNDS = "rounds.jsonl"
DATA = "data.jsonl"
_GROWING = (INSTRUCTIONS, INSTANCES, DROPPED)

Row = dict[str, Any]


@dataclass
class Round:
    """What one round gave."""

    number: int
    proposed: int = 0  # instructions that the model wrote, kept or not
    instructions: list[Row] = field(default_factory=list)
    instances: list[Row] = field(default_factory=list)
    dropped: list[Row] = field(default_factory=list)

    def drop(self, reason: str, **what: Any) -> None:
        self.dropped.append({"round": self.number, "reason": reason, **what})


class Store:
    """The rounds in `folder` so far. resume: go on with what is there; else start with none.

    Raises UserError where a file is shorter than its rounds say.
    """

    def __init__(self, folder: Path, *, resume: bool) -> None:
        self._folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        if not resume:
            for name in (ROUNDS, *_GROWING):
                (folder / name).unlink(missing_ok=True)
        self.rounds = self._whole_rounds()
        ends = self.rounds[-1]["bytes"] if self.rounds else {}
        for name in _GROWING:
            self._cut(name, ends.get(name, 0))
        self.instructions: list[str] = [row["instruction"] for row in self.rows(INSTRUCTIONS)]

    def rows(self, name: str) -> list[Row]:
        lines = (self._folder / name).read_text(encoding="utf-8").split("\n")
        return [json.loads(line) for line in lines if line]

    @property
    def fruitless(self) -> int:
        """Rounds since the last that kept an instruction."""
        kept = [entry["kept"] > 0 for entry in reversed(self.rounds)]
        return kept.index(True) if True in kept else len(kept)

    def commit(self, made: Round) -> None:
        """Adds a round; it is on the disk when this returns, whole or, after a crash, not at all."""
        rows = {INSTRUCTIONS: made.instructions, INSTANCES: made.instances, DROPPED: made.dropped}
        ends = {name: append(self._folder / name, rows[name]) for name in _GROWING}
        entry = {
            "round": made.number,
            "proposed": made.proposed,
            "kept": len(made.instructions),
            "instances": len(made.instances),
            "dropped": len(made.dropped),
            "bytes": ends,
        }
        append(self._folder / ROUNDS, [entry])
        self.rounds.append(entry)
        self.instructions += [row["instruction"] for row in made.instructions]

    def write_data(self) -> Path:
        """All instances as {instruction, input, output} rows, which `data=alpaca` reads."""
        rows = [{key: row[key] for key in ("instruction", "input", "output")} for row in self.rows(INSTANCES)]
        write_text_atomic(self._folder / DATA, "".join(json_line(row) for row in rows))
        return self._folder / DATA

    def _whole_rounds(self) -> list[Row]:
        path = self._folder / ROUNDS
        path.touch()
        data = path.read_bytes()
        self._cut(ROUNDS, data.rfind(b"\n") + 1)
        return self.rows(ROUNDS)

    def _cut(self, name: str, size: int) -> None:
        path = self._folder / name
        path.touch()
        there = path.stat().st_size
        if there < size:
            raise UserError(
                f"{path} has {there} bytes and had {size} when its last round was written; put it back, or choose "
                "another run.name."
            )
        if there > size:
            os.truncate(path, size)


def append(path: Path, rows: Iterable[Mapping[str, Any]]) -> int:
    """Adds rows to the end of a file, down to the disk; the file's size in bytes then."""
    with path.open("ab") as file:
        file.write("".join(json_line(row) for row in rows).encode("utf-8"))
        file.flush()
        os.fsync(file.fileno())
        return file.tell()

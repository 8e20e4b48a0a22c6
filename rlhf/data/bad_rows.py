"""What happens to a row that cannot be used: refused with a sentence, or skipped, counted and listed."""

from __future__ import annotations

import json
from pathlib import Path

from rlhf.config import OnBadRow
from rlhf.errors import UserError
from rlhf.runtime.distributed import is_main_process


class BadRows:
    """Collects rows that cannot be used. `path` lists the skipped ones, one JSON line each; None lists them nowhere.

    A fresh BadRows starts a fresh list; `append=True` adds to the one that an earlier step of the same stage wrote,
    and lists a row once however often the stage is resumed.
    """

    def __init__(self, policy: OnBadRow, path: Path | None, *, append: bool = False) -> None:
        path = path if is_main_process() else None  # all ranks find the same rows
        self.policy = policy
        self.path = path
        self.count = 0
        self._listed: set[str] = set()
        if path is not None and append and path.exists():
            self._listed = set(path.read_text(encoding="utf-8").split("\n"))
        elif path is not None:
            path.unlink(missing_ok=True)

    def add(self, where: str, problem: str, remedy: str = "mend the row", rows: int = 1) -> None:
        """Counts a bad row, or `rows` that are one thing. `where` names file and row.

        Raises UserError when bad rows are refused.
        """
        if self.policy == OnBadRow.refuse:
            raise UserError(f"{where}: {problem}; {remedy}, or set data.on_bad_row=skip to leave such rows out.")
        self.leave_out(where, problem, rows)

    def leave_out(self, where: str, problem: str, rows: int = 1) -> None:
        """Counts and lists what is left out on request, whatever is done with bad rows."""
        self.count += rows
        entry = {"where": where, "problem": problem, **({"rows": rows} if rows > 1 else {})}
        line = json.dumps(entry, ensure_ascii=False)
        if self.path is not None and line not in self._listed:
            self._listed.add(line)
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with self.path.open("a", encoding="utf-8") as file:
                file.write(line + "\n")

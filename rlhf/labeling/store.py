"""Judgements in SQLite: on disk when `add` returns, each counted once, none forgotten.

Write-ahead log, full synchronisation, one short transaction a call and a connection of its own for it, so several
servers, threads and a killed process do no harm. What is undone stays as a row that no longer stands.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import sqlite3
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime
from pathlib import Path

from rlhf.errors import UserError
from rlhf.labeling.items import Item
from rlhf.labeling.judgements import Judgement

VERSION = 1
HELD_S = 30 * 60  # an item that a labeler was shown and has not judged goes to others after that
_BUSY_S = 30.0  # to wait for another writer
_SCHEMA = f"""
CREATE TABLE project (id TEXT NOT NULL) STRICT;
CREATE TABLE items (key TEXT PRIMARY KEY, content TEXT NOT NULL) STRICT;
CREATE TABLE judgements (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    item TEXT NOT NULL REFERENCES items (key),
    labeler TEXT NOT NULL,
    seconds REAL NOT NULL,
    content TEXT, -- NULL: skipped
    judged_at TEXT NOT NULL,
    undone_at TEXT
) STRICT;
CREATE UNIQUE INDEX standing ON judgements (labeler, item) WHERE undone_at IS NULL;
CREATE TABLE held (labeler TEXT PRIMARY KEY, item TEXT NOT NULL REFERENCES items (key), since REAL NOT NULL) STRICT;
PRAGMA user_version = {VERSION};
"""
_COLUMNS = "id, item, labeler, seconds, content, judged_at"


class JudgedError(Exception):
    """The labeler has judged this item already, in another window."""


class Store:
    """One file of judgements; made where there is none. Raises UserError for a file of another kind or version."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            with contextlib.closing(self._connect()) as connection:
                connection.execute("PRAGMA journal_mode = WAL")
            with self._transaction() as connection:
                (version,) = connection.execute("PRAGMA user_version").fetchone()
                if version == 0:
                    for statement in _SCHEMA.split(";"):  # executescript would commit before the first
                        connection.execute(statement)
                    connection.execute("INSERT INTO project VALUES (?)", (secrets.token_hex(8),))
                elif version != VERSION:
                    raise UserError(
                        f"{path} has version {version} of its layout, and this is version {VERSION}; use the rlhf that "
                        "wrote it, or choose another run.name."
                    )
                (self.project,) = connection.execute("SELECT id FROM project").fetchone()
        except sqlite3.DatabaseError as error:
            raise UserError(f"{path} cannot be used ({error}); move it away, or choose another run.name.") from None

    def add_items(self, items: Iterable[Item]) -> None:
        """Keeps what is shown, so that what was said of it has a meaning when the file it came from is gone."""
        rows = ((item.key, json.dumps(item.to_values())) for item in items)
        with self._transaction() as connection:
            connection.executemany("INSERT OR IGNORE INTO items VALUES (?, ?)", rows)

    def item(self, key: str) -> Item | None:
        with self._reading() as connection:
            row = connection.execute("SELECT content FROM items WHERE key = ?", (key,)).fetchone()
        return None if row is None else Item.from_values(json.loads(row[0]))

    def items(self) -> dict[str, Item]:
        """Those that some standing judgement is about, by key."""
        with self._reading() as connection:
            rows = connection.execute(
                "SELECT key, content FROM items WHERE key IN (SELECT item FROM judgements WHERE undone_at IS NULL)"
            ).fetchall()
        return {key: Item.from_values(json.loads(content)) for key, content in rows}

    def take(self, labeler: str, keys: Sequence[str], overlap: int | None) -> str | None:
        """The item to show next: the one the labeler has in hand, else the first of `keys` that wants a judgement.

        overlap: judgements an item wants, those that others have it in hand for among them; None: everybody's.
        """
        now = time.time()
        with self._transaction() as connection:
            judged = connection.execute("SELECT item, labeler, content IS NULL FROM judgements WHERE undone_at IS NULL")
            mine: set[str] = set()
            taken: Counter[str] = Counter()
            for item, who, skipped in judged:
                if who == labeler:
                    mine.add(item)
                elif not skipped:
                    taken[item] += 1
            held = connection.execute("SELECT item FROM held WHERE labeler = ?", (labeler,)).fetchone()
            others = connection.execute(
                "SELECT item FROM held WHERE labeler != ? AND since > ?", (labeler, now - HELD_S)
            ).fetchall()
            taken.update(item for (item,) in others)
            wanted = [key for key in keys if key not in mine and (overlap is None or taken[key] < overlap)]
            chosen = held[0] if held is not None and held[0] in wanted else next(iter(wanted), None)
            if chosen is None:
                connection.execute("DELETE FROM held WHERE labeler = ?", (labeler,))
            else:
                _hold(connection, labeler, chosen, now)
            return chosen

    def add(self, judgement: Judgement) -> bool:
        """Keeps a judgement; False where its id is there already, standing or undone.

        Raises JudgedError where another judgement of this labeler on this item stands.
        """
        content = {"ranks": judgement.ranks, "quality": judgement.quality, "attributes": judgement.attributes}
        kept = None if judgement.skipped else json.dumps(content)
        values = (judgement.id, judgement.item, judgement.labeler, judgement.seconds, kept, _now())
        with self._transaction() as connection:
            if connection.execute("SELECT 1 FROM judgements WHERE id = ?", (judgement.id,)).fetchone():
                return False
            try:
                connection.execute(f"INSERT INTO judgements ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError:
                raise JudgedError from None
            connection.execute("DELETE FROM held WHERE labeler = ? AND item = ?", (judgement.labeler, judgement.item))
        return True

    def undo(self, labeler: str, judgement_id: str) -> Judgement | None:
        """Takes a judgement back and gives its item to the labeler again; None where it does not stand."""
        with self._transaction() as connection:
            row = connection.execute(
                f"SELECT {_COLUMNS} FROM judgements WHERE id = ? AND labeler = ? AND undone_at IS NULL",
                (judgement_id, labeler),
            ).fetchone()
            if row is None:
                return None
            connection.execute("UPDATE judgements SET undone_at = ? WHERE id = ?", (_now(), judgement_id))
            undone = _judgement(row)
            _hold(connection, labeler, undone.item, time.time())
            return undone

    def last(self, labeler: str) -> str | None:
        """The id of the labeler's newest judgement that stands."""
        with self._reading() as connection:
            row = connection.execute(
                "SELECT id FROM judgements WHERE labeler = ? AND undone_at IS NULL ORDER BY number DESC LIMIT 1",
                (labeler,),
            ).fetchone()
        return None if row is None else row[0]

    def standing(self) -> list[Judgement]:
        """All that stand, in the order in which they came."""
        with self._reading() as connection:
            rows = connection.execute(
                f"SELECT {_COLUMNS} FROM judgements WHERE undone_at IS NULL ORDER BY number"
            ).fetchall()
        return [_judgement(row) for row in rows]

    def _connect(self) -> sqlite3.Connection:
        connection = sqlite3.connect(self.path, timeout=_BUSY_S, isolation_level=None)  # we begin and commit
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA foreign_keys = ON")
        return connection

    @contextlib.contextmanager
    def _reading(self) -> Iterator[sqlite3.Connection]:
        with contextlib.closing(self._connect()) as connection:
            yield connection

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        """Alone among writers from its first line on, whole or not at all."""
        with contextlib.closing(self._connect()) as connection:
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
            except BaseException:
                connection.execute("ROLLBACK")
                raise
            connection.execute("COMMIT")


def _hold(connection: sqlite3.Connection, labeler: str, item: str, now: float) -> None:
    connection.execute("INSERT OR REPLACE INTO held VALUES (?, ?, ?)", (labeler, item, now))


def _judgement(row: tuple[str, str, str, float, str | None, str]) -> Judgement:
    judgement_id, item, labeler, seconds, content, judged_at = row
    said = {} if content is None else json.loads(content)
    return Judgement(judgement_id, item, labeler, seconds, **said, judged_at=judged_at)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")

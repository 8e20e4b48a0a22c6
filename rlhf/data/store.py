"""Records on disk: read once, kept in a cache by what they were read from, and decoded one by one when asked for.

A million records take the memory of a few numbers each; their texts stay in a memory-mapped Arrow file.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import xxhash

from rlhf.data.codec import KINDS, from_values, to_values
from rlhf.data.records import Document, Message, Record, Role, Split, prompt_of
from rlhf.errors import UserError
from rlhf.runtime.checkpoints import fsync

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("rlhf")

T = TypeVar("T")
_SEAL = "seal.json"  # of a cache's entry: the size and the hash of each of its files
_AT_ONCE = 1000  # records decoded in one go
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)
_SPLITS = (None, Split.train, Split.evaluation)


def cache_folder(chosen: str | None) -> Path:
    """data.cache, or rlhf/ in the user's cache folder."""
    if chosen is not None:
        return Path(chosen).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "rlhf"


def made_once(folder: Path, make: Callable[[Path], None]) -> Path:
    """`folder`, filled by `make` unless it is there and whole; processes that want the same one wait for the first.

    What lies there is held against its seal each time: a cache that a disk has damaged is made anew, and it is said.
    Raises UserError when the disk does not take it.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        if _damage(folder) is not None:
            with (folder.parent / f".{folder.name}.lock").open("w") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                damage = _damage(folder)  # another process may have made it meanwhile
                if damage is not None:
                    if folder.is_dir():
                        log.warning("the cache %s is damaged (%s) and made anew", folder, damage)
                        shutil.rmtree(folder)
                    _fill(folder, make)
    except OSError as error:
        if error.errno not in _DISK_ERRORS and not str(error.filename).startswith(str(folder.parent)):
            raise
        raise UserError(
            f"The cache {folder.parent} cannot be written ({error.strerror}); set data.cache=FOLDER to one with room, "
            "or make room: everything in a cache can be removed."
        ) from error
    return folder


def _fill(folder: Path, make: Callable[[Path], None]) -> None:
    for left in folder.parent.glob(f".{folder.name}-*"):  # by a process that was killed: the lock is ours
        shutil.rmtree(left, ignore_errors=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        make(aside)
        _seal(aside)
        os.replace(aside, folder)
    except BaseException:
        shutil.rmtree(aside, ignore_errors=True)
        raise


def _seal(folder: Path) -> None:
    """Puts the folder's files on disk, and beside them how long each is and the hash of its bytes."""
    files = sorted(path for path in folder.iterdir() if path.is_file())
    told = {path.name: [path.stat().st_size, _hash_of(path)] for path in files}
    (folder / _SEAL).write_text(json.dumps(told), encoding="utf-8")
    for path in (*files, folder / _SEAL, folder):
        fsync(path)


def _damage(folder: Path) -> str | None:
    """What is not as it was sealed, None where all is."""
    try:
        told: dict[str, list[Any]] = json.loads((folder / _SEAL).read_text(encoding="utf-8"))
        for name, (size, hashed) in told.items():
            path = folder / name
            if path.stat().st_size != size or _hash_of(path) != hashed:
                return f"{name} is not what was written"
    except FileNotFoundError as error:
        return f"{Path(error.filename).name} is missing"
    except (ValueError, AttributeError, TypeError):
        return f"{_SEAL} is not what was written"
    return None


def _hash_of(path: Path) -> str:
    """XXH3 (not for secrecy): as fast as the disk, so that hundreds of megabytes are read in a blink."""
    digest = xxhash.xxh3_64()
    with path.open("rb") as file:
        while block := file.read(1 << 22):
            digest.update(block)
    return digest.hexdigest()


def key_of(record: Record) -> str:
    """What two records of one prompt share: the conversation, or a document's text."""
    return record.text if isinstance(record, Document) else _spelled(prompt_of(record).messages)


def opening_of(record: Record) -> str:
    """What decides the split of a record: its conversation up to the user's first turn, or a document's text.

    Conversations that begin alike lie in one split, for each may hold the next one's prompt.
    """
    if isinstance(record, Document):
        return record.text
    messages = prompt_of(record).messages
    first = next((index for index, message in enumerate(messages) if message.role == Role.user), len(messages))
    return _spelled(messages[: first + 1])


def _spelled(messages: Sequence[Message]) -> str:
    return json.dumps([[message.role.value, message.content] for message in messages], ensure_ascii=False)


def place_of(key: str) -> int:
    """A number from 0 to 2^64 - 1 that depends on `key` alone, so that no seed or row order moves it."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big")


@dataclass(frozen=True)
class Encoded:
    """A record as the file holds it."""

    kind: int
    split: int
    key: int
    opening: int
    user: int
    record: bytes


def encode(record: Record) -> Encoded:
    """Raises UnicodeEncodeError for text that is none."""
    prompt = prompt_of(record)
    return Encoded(
        KINDS.index(type(record)),
        _SPLITS.index(None if prompt is None else prompt.split),
        place_of(key_of(record)),
        place_of(opening_of(record)),
        place_of(prompt.user) if prompt is not None and prompt.user else 0,
        json.dumps(to_values(record), ensure_ascii=False).encode(),
    )


def write(path: Path, records: Iterable[Encoded]) -> None:
    """Writes records as one Arrow file."""
    import pyarrow as pa

    numbers = [("kind", pa.int8()), ("split", pa.int8())]
    hashes = [("key", pa.uint64()), ("opening", pa.uint64()), ("user", pa.uint64())]
    schema = pa.schema([*numbers, *hashes, ("record", pa.large_string())])
    with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_stream(sink, schema) as writer:
        remaining = iter(records)
        while batch := list(itertools.islice(remaining, _AT_ONCE)):
            columns = [pa.array([getattr(record, f.name) for record in batch], f.type) for f in schema]
            writer.write_batch(pa.record_batch(columns, schema=schema))


class Store:
    """The records of one Arrow file, and the few numbers of each that choose among them.

    Raises UserError for a file that is none any more.
    """

    def __init__(self, path: Path) -> None:
        import pyarrow
        from datasets import Dataset

        self.name = path.parent.name  # the cache calls a folder by the hash of what it was made from
        try:
            self.dataset: Dataset = Dataset.from_file(str(path))
        except (pyarrow.ArrowException, OSError) as error:
            raise UserError(f"{path} is damaged ({error}); remove {path.parent}, and it is made again.") from None
        columns = self.dataset.data
        self.kind, self.split, self.key, self.opening, self.user = (
            columns.column(name).to_numpy() for name in ("kind", "split", "key", "opening", "user")
        )

    def __len__(self) -> int:
        return len(self.dataset)

    def pick(self, indices: np.ndarray, view: Callable[[Any], T]) -> StoredRecords[T]:
        return StoredRecords(self, indices, view)


class StoredRecords(Sequence[T], Generic[T]):
    """Some records of a store, decoded when they are asked for, and seen through `view`."""

    def __init__(self, store: Store, indices: np.ndarray, view: Callable[[Any], T]) -> None:
        self.store = store
        self.indices = indices
        self.view = view

    def __len__(self) -> int:
        return len(self.indices)

    @overload
    def __getitem__(self, index: int) -> T: ...
    @overload
    def __getitem__(self, index: slice) -> StoredRecords[T]: ...
    def __getitem__(self, index: int | slice) -> T | StoredRecords[T]:
        if isinstance(index, slice):
            return StoredRecords(self.store, self.indices[index], self.view)
        return self.decode(self.store.dataset[int(self.indices[index])])

    def __iter__(self) -> Iterator[T]:
        for start in range(0, len(self), _AT_ONCE):
            rows = self.store.dataset[self.indices[start : start + _AT_ONCE]]
            for kind, text in zip(rows["kind"], rows["record"], strict=True):
                yield self.decode({"kind": kind, "record": text})

    def decode(self, row: dict[str, Any]) -> T:
        return self.view(from_values(KINDS[row["kind"]], json.loads(row["record"])))

    def at(self, indices: np.ndarray) -> StoredRecords[T]:
        return StoredRecords(self.store, self.indices[indices], self.view)

    @property
    def fingerprint(self) -> str:
        """Of the file and the choice, for what is computed from them."""
        return f"{self.store.name}:{hashlib.sha256(self.indices.tobytes()).hexdigest()}"


def picked(records: Sequence[T], indices: np.ndarray) -> Sequence[T]:
    """Some of the records, on disk where they lie there."""
    return records.at(indices) if isinstance(records, StoredRecords) else [records[int(index)] for index in indices]

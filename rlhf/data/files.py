"""Rows of a JSON file, a folder of them or a hub dataset, each with the place an error message names."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.data.bad_rows import BadRows
from rlhf.errors import UserError

SUFFIXES = (".jsonl", ".jsonl.gz", ".json", ".json.gz")


@dataclass(frozen=True)
class Row:
    file: str  # its name without folders
    number: int  # 1 is the first
    values: Mapping[str, Any]

    @property
    def where(self) -> str:
        return f"{self.file}, row {self.number}"


@dataclass
class RowReader:
    """Iterates over a source's rows; `sha256` and `rows` are those of what was read, once it is exhausted."""

    path: str
    key: str  # the setting that names the path, for error messages
    bad_rows: BadRows
    max_rows: int | None = None
    rows: int = 0
    sha256: str = ""

    def __iter__(self) -> Iterator[Row]:
        digest = hashlib.sha256()
        self.rows = 0
        for row in self._located(digest):
            if self.max_rows is not None and self.rows == self.max_rows:
                break
            self.rows += 1
            if isinstance(row.values, Mapping):
                yield row
            else:
                self.bad_rows.add(row.where, f"it is {_shorten(row.values)}, not a JSON object")
        self.sha256 = digest.hexdigest()
        if self.rows == 0:
            raise UserError(f"{self.path} holds no rows; set {self.key} to a file with one record a line.")

    def _located(self, digest: Any) -> Iterator[Row]:
        path = Path(self.path).expanduser()
        if path.is_dir():
            files = sorted(p for p in path.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
            if not files:
                raise UserError(f"{self.key}={self.path} holds no {', '.join(SUFFIXES)} file; point it at one.")
        elif path.is_file():
            files = [path]
        elif self.path.count("/") == 1 and not self.path.startswith((".", "~", "/")) and not path.suffix:
            yield from _read_hub(self.path, self.key, digest)
            return
        else:
            raise UserError(f"There is no file {self.path}; set {self.key} to a file, a folder or a hub dataset.")
        for file in files:
            yield from self._read_file(file, digest)

    def _read_file(self, path: Path, digest: Any) -> Iterator[Row]:
        if not path.name.endswith(SUFFIXES):
            raise UserError(
                f"{path.name} has an unknown format; {self.key} takes {', '.join(SUFFIXES)} (one JSON object a line, "
                "or one JSON list)."
            )
        data = path.read_bytes()
        digest.update(data)
        try:
            text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode("utf-8")
        except (OSError, EOFError, UnicodeDecodeError) as error:
            raise UserError(
                f"{path.name} cannot be read ({error}); {self.key} takes UTF-8 text, plain or gzip."
            ) from None
        if text.lstrip()[:1] == "[" and ".jsonl" not in path.name:
            yield from self._read_list(path, text)
            return
        # Not splitlines(): JSON strings may hold U+2028 and other characters that it takes for line ends.
        for number, line in enumerate((line for line in text.split("\n") if line.strip()), start=1):
            try:
                yield Row(path.name, number, json.loads(line))
            except json.JSONDecodeError as error:
                self.rows += 1
                self.bad_rows.add(f"{path.name}, row {number}", f"it is not JSON ({error.msg})")

    def _read_list(self, path: Path, text: str) -> Iterator[Row]:
        try:
            values = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{path.name} is not JSON ({error}); set {self.key} to a whole file.") from None
        for number, row in enumerate(values, start=1):
            yield Row(path.name, number, row)


def _read_hub(name: str, key: str, digest: Any) -> Iterator[Row]:
    import datasets

    try:
        dataset = datasets.load_dataset(name, split="train")
    except Exception as error:  # network, authentication, missing script: all one to the person who typed the name
        raise UserError(
            f"{key}={name} is no local file, and no hub dataset of that name loads ({_shorten(error)})."
        ) from None
    digest.update(f"{name}:{dataset._fingerprint}".encode())
    for number, row in enumerate(dataset, start=1):
        yield Row(name, number, row)


def _shorten(value: object) -> str:
    text = str(value).split("\n")[0]
    return text if len(text) <= 80 else text[:77] + "..."

"""Rows of files, folders and hub datasets, one after the other, each with the place an error message names."""

from __future__ import annotations

import contextlib
import csv
import gzip
import hashlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from rlhf.config import DataConfig
from rlhf.data.file_splits import in_words, splits_of
from rlhf.errors import UserError

SUFFIXES = (".jsonl", ".json", ".csv", ".tsv", ".parquet", ".jsonl.gz", ".json.gz", ".csv.gz", ".tsv.gz")
# Beside a hub dataset's rows, and no rows themselves.
_METADATA = ("dataset_infos.json", "dataset_info.json", "dataset_dict.json", "state.json")
_CHUNK = 1 << 20  # bytes, or characters, read at once


@dataclass(frozen=True)
class Table:
    """How .csv and .tsv files of a format are written."""

    columns: tuple[str, ...] = ()  # their names; (): they stand in the first line
    quoting: bool = True  # False: a quotation mark is a character like others, and a row a line


@dataclass(frozen=True)
class Row:
    file: str  # its name without folders
    number: int  # 1 is the first
    values: Any  # a mapping, if the file is right; a `Broken` where not even that could be read
    merged: int = 1  # rows of the file that this one stands for, where a reader gathers them
    evaluation: bool | None = None  # whether its file holds the evaluation rows of a folder; None: no telling

    @property
    def where(self) -> str:
        return f"{self.file}, row {self.number}"


@dataclass(frozen=True)
class Broken:
    """In place of a row's values: why it has none."""

    problem: str


def is_hub_id(path: str) -> bool:
    """True for `owner/name` where no such file or folder lies on this disk."""
    local = Path(path).expanduser()
    return path.count("/") == 1 and not path.startswith((".", "~", "/")) and not local.suffix and not local.exists()


class RowFiles:
    """The rows behind a path; `sha256` is that of what they are read from.

    key: the setting that names the path, for error messages.
    Raises UserError when nothing lies there, or nothing that holds rows.
    """

    def __init__(self, path: str, key: str, config: DataConfig, table: Table) -> None:
        self.path = path
        self.key = key
        self._table = table
        self._max_rows = config.max_rows
        self._hub: _HubRows | None = None
        self._files: list[Path] = []
        if is_hub_id(path):
            self._hub = _HubRows(path, key, config)
            self.sha256 = self._hub.sha256
        else:
            self._files = _files(path, key)
            self.sha256 = _sha256(self._files)

    def __iter__(self) -> Iterator[Row]:
        for count, row in enumerate(self._hub or self._local()):
            if count == self._max_rows:
                return
            yield row

    @property
    def names(self) -> list[str]:
        """The files' paths below the folder, which rows are called by and which decide their splits."""
        return [self._name(file) for file in self._files] or [self.path]

    def _name(self, file: Path) -> str:
        root = Path(self.path).expanduser()
        return file.relative_to(root).as_posix() if root.is_dir() else file.name

    @property
    def splits_in_words(self) -> str | None:
        """Which files were taken for evaluation by their names; None where names tell nothing."""
        return in_words(self.names) if self._files else None

    def _local(self) -> Iterator[Row]:
        splits = splits_of(self.names)
        for file in self._files:
            name = self._name(file)
            for number, values in enumerate(self._values(file), start=1):
                yield Row(name, number, values, evaluation=splits.get(name))

    def _values(self, file: Path) -> Iterator[Any]:
        _check_beginning(file, self.key)
        kind = file.name.removesuffix(".gz").rpartition(".")[2]
        if kind == "arrow":
            yield from _saved_values(file)
        elif kind == "parquet":
            yield from _parquet_values(file, self.key)
        else:
            with _opened(file) as stream:
                try:
                    if kind in ("csv", "tsv"):
                        yield from _table_values(stream, "\t" if kind == "tsv" else ",", self._table, file, self.key)
                    elif _is_a_list(stream, kind):
                        yield from _list_values(stream, file, self.key)
                    else:
                        yield from _line_values(stream)
                except (gzip.BadGzipFile, EOFError) as error:
                    raise _unreadable(file, self.key, error) from None


def _files(path: str, key: str) -> list[Path]:
    local = Path(path).expanduser()
    if local.is_dir():
        saved = sorted(local.rglob("data-*.arrow"))  # by datasets' save_to_disk
        files = sorted(p for p in local.rglob("*") if p.is_file() and p.name.endswith(SUFFIXES))
        files = saved or [p for p in files if p.name not in _METADATA and not _is_hidden(p.relative_to(local))]
        if not files:
            raise UserError(f"{key}={path} holds no {', '.join(SUFFIXES[:5])} file; point it at one.")
        return files
    if not local.is_file():
        raise UserError(f"There is no file {path}; set {key} to a file, a folder or a hub dataset.")
    if not local.name.endswith(SUFFIXES):
        raise UserError(f"{local.name} has an unknown format; {key} takes {', '.join(SUFFIXES[:5])}, text also as .gz.")
    return [local]


# How files begin that are not what their names say: what they are, and what to do about it.
_BEGINNINGS = {
    b"version https://git-lfs": "a Git LFS pointer and not the file; `git lfs pull` in its repository fetches that",
    b"\xff\xfe": "UTF-16 text, as PowerShell's > writes it; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"\xfe\xff": "UTF-16 text; save it as UTF-8 (iconv -f UTF-16 -t UTF-8)",
    b"PK\x03\x04": "a zip archive; unpack it",
    b"<!DOCTYPE": "a web page, as a download without a login gives it; get the file itself",
    b"<html": "a web page, as a download without a login gives it; get the file itself",
}


def _check_beginning(file: Path, key: str) -> None:
    """UserError for a file whose first bytes say that it is something else."""
    with file.open("rb") as opened:
        begins = opened.read(32)
    for mark, what in _BEGINNINGS.items():
        if begins.startswith(mark):
            raise UserError(f"{file.name} is {what}. {key} takes {', '.join(SUFFIXES[:5])}, text also as .gz.")
    if begins.startswith(b"\x1f\x8b") and not file.name.endswith(".gz"):
        raise UserError(f"{file.name} is gzip-compressed; call it {file.name}.gz, and set {key} to that.")


def _is_hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _sha256(files: list[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as stream:
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    return digest.hexdigest()


def _opened(file: Path) -> BinaryIO:
    return gzip.open(file, "rb") if file.suffix == ".gz" else file.open("rb")  # type: ignore[return-value]


def _unreadable(file: Path, key: str, error: object) -> UserError:
    return UserError(f"{file.name} cannot be read ({shorten(error)}); {key} takes UTF-8 text, plain or gzip.")


def _is_a_list(stream: BinaryIO, kind: str) -> bool:
    """Whether a file is one JSON list of objects; the stream is where it was afterwards.

    Names do not tell: hh-rlhf's red_team_attempts.jsonl.gz is such a list. In a .jsonl file a line that is a list is a
    wrong row, unless it goes on beyond the line or is all there is.
    """
    beginning = b""
    while re.fullmatch(rb"(\xef\xbb\xbf)?\s*\[?\s*", beginning) and (chunk := stream.read(4096)):
        beginning += chunk
    stream.seek(0)
    if kind == "json" or not re.match(rb"(\xef\xbb\xbf)?\s*\[\s*{", beginning):
        return kind == "json" and re.match(rb"(\xef\xbb\xbf)?\s*\[\s*[{\]]", beginning) is not None
    first = next(line for line in stream if line.strip(b"\xef\xbb\xbf \t\r\n"))
    goes_on = any(line.strip() for line in stream)
    stream.seek(0)
    return not goes_on or isinstance(_parsed(first.removeprefix(b"\xef\xbb\xbf")), Broken)


def _line_values(stream: BinaryIO) -> Iterator[Any]:
    # Lines end at b"\n" alone: JSON strings may hold U+2028 and others that str.splitlines takes for line ends.
    for index, line in enumerate(stream):
        line = line.removeprefix(b"\xef\xbb\xbf") if index == 0 else line
        if line.strip():
            yield _parsed(line)


def _parsed(line: bytes) -> Any:
    try:
        return json.loads(line)
    except UnicodeDecodeError as error:
        return Broken(f"it is not UTF-8 ({error.reason})")
    except ValueError as error:  # not JSON, or a number of more digits than Python converts
        return Broken(f"it is not JSON ({getattr(error, 'msg', shorten(error))})")
    except RecursionError:
        return Broken("it is not JSON that can be read (nested too deeply)")


def _list_values(stream: BinaryIO, file: Path, key: str) -> Iterator[Any]:
    """The items of one JSON list, parsed one by one so that a long list need not fit in memory."""
    decoder = json.JSONDecoder()
    text, at, wanted = "", 0, _CHUNK
    reader = _decoded(stream, file, key)

    def more() -> bool:
        nonlocal text, at
        chunk = next(reader, "")
        text, at = text[at:] + chunk, 0
        return bool(chunk)

    def skip(characters: str) -> str:
        """Passes over `characters` and gives the next one, "" at the end."""
        nonlocal at
        while True:
            while at < len(text) and text[at] in characters:
                at += 1
            if at < len(text):
                return text[at]
            if not more():
                return ""

    skip(" \t\r\n\ufeff")
    at += 1  # the bracket
    first = True
    while (character := skip(" \t\r\n")) != "]":
        if not first:
            if character != ",":
                raise _broken_list(file, key, "a comma or the closing bracket is missing")
            at += 1
            character = skip(" \t\r\n")
        if not character:
            raise _broken_list(file, key, "it ends before the closing bracket")
        first = False
        while True:
            try:
                value, end = decoder.raw_decode(text, at)
                # A number that stands at the end of what was read so far may go on.
                if end == len(text) and not isinstance(value, Mapping | list | str) and more():
                    continue
                break
            except (json.JSONDecodeError, RecursionError) as error:
                wanted *= 2  # read ever more, so that a long item is not tried again for every chunk
                grown = False
                while len(text) - at < wanted and more():
                    grown = True
                if not grown:
                    raise _broken_list(file, key, str(error)) from None
        at = end
        yield value


def _broken_list(file: Path, key: str, problem: str) -> UserError:
    return UserError(f"{file.name} is not JSON ({problem}); set {key} to a whole file.")


def _decoded(stream: BinaryIO, file: Path, key: str) -> Iterator[str]:
    import codecs

    decoder = codecs.getincrementaldecoder("utf-8")()
    try:
        while chunk := stream.read(_CHUNK):
            yield decoder.decode(chunk)
        yield decoder.decode(b"", final=True)
    except UnicodeDecodeError as error:
        raise _unreadable(file, key, error) from None


def _table_values(stream: BinaryIO, delimiter: str, table: Table, file: Path, key: str) -> Iterator[Any]:
    rows = _quoted_rows(stream, delimiter, file, key) if table.quoting else _plain_rows(stream, delimiter)
    columns = list(table.columns)
    for row in rows:
        if isinstance(row, Broken):
            yield row
        elif not columns:
            columns = row
            twice = sorted({name for name in columns if columns.count(name) > 1})
            if twice:
                raise UserError(f"{file.name} has two columns `{twice[0]}`; set {key} to a table that names each once.")
        elif len(row) != len(columns):
            yield Broken(f"it has {len(row)} fields, and there are {len(columns)} columns")
        else:
            # All values are text: None, NA and 007 stay what they are.
            yield dict(zip(columns, row, strict=True))


def _quoted_rows(stream: BinaryIO, delimiter: str, file: Path, key: str) -> Iterator[list[str] | Broken]:
    import io

    csv.field_size_limit(sys.maxsize)
    reader = csv.reader(io.TextIOWrapper(stream, encoding="utf-8-sig", newline=""), delimiter=delimiter)
    while True:
        try:
            row = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            yield Broken(f"it is no row of a table ({error})")
            continue
        except UnicodeDecodeError as error:
            raise _unreadable(file, key, error) from None
        if row:
            yield row


def _plain_rows(stream: BinaryIO, delimiter: str) -> Iterator[list[str] | Broken]:
    for line in stream:
        try:
            text = line.decode("utf-8").rstrip("\r\n")
        except UnicodeDecodeError as error:
            yield Broken(f"it is not UTF-8 ({error.reason})")
            continue
        if text:
            yield text.split(delimiter)


def _parquet_values(file: Path, key: str) -> Iterator[Any]:
    import pyarrow
    import pyarrow.parquet

    try:
        with pyarrow.parquet.ParquetFile(file) as table:
            for batch in table.iter_batches(batch_size=1000):
                yield from batch.to_pylist()
    except (pyarrow.ArrowException, OSError) as error:
        raise UserError(f"{file.name} cannot be read ({shorten(error)}); set {key} to a whole Parquet file.") from None


def _saved_values(file: Path) -> Iterator[Any]:
    from datasets import Dataset

    yield from Dataset.from_file(str(file))


class _HubRows:
    def __init__(self, name: str, key: str, config: DataConfig) -> None:
        import datasets
        from huggingface_hub import HfApi

        revision = None
        with contextlib.suppress(Exception):  # offline datasets' cache may have it; what is missing is said below
            revision = HfApi().dataset_info(name).sha
        try:
            self._rows = datasets.load_dataset(
                name, config.subset, split=config.split, streaming=config.streaming, revision=revision
            )
        except Exception as error:  # network, authentication, missing script: all one to the person who typed the name
            raise UserError(
                f"{key}={name} is no local file, and no hub dataset of that name loads ({shorten(error)})."
            ) from None
        self._name = name
        stands_for = revision or getattr(self._rows, "_fingerprint", "")
        described = [name, config.subset, config.split, stands_for]
        self.sha256 = hashlib.sha256(json.dumps(described).encode()).hexdigest()

    def __iter__(self) -> Iterator[Row]:
        for number, values in enumerate(self._rows, start=1):
            yield Row(self._name, number, values)


def shorten(value: object) -> str:
    """The first line of what `value` says, 80 characters at most; half a character (a surrogate) is spelled out."""
    text = str(value).split("\n")[0].encode("utf-8", "backslashreplace").decode("utf-8")
    return text if len(text) <= 80 else text[:77] + "..."

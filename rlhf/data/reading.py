"""From files to stored records: every row gives at least one record or is refused with a reason, and is counted."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rlhf.config import DataConfig, DataSourceName
from rlhf.data.bad_rows import BadRows
from rlhf.data.files import Broken, Row, RowFiles, Table, shorten
from rlhf.data.phrasings import Phrasings
from rlhf.data.phrasings import load as load_phrasings
from rlhf.data.readers import reader_of
from rlhf.data.records import BadRowError, Demonstration, Document, Prompt, Ranking, Record, Split, prompt_of
from rlhf.data.store import Encoded, Store, cache_folder, encode, made_once, place_of, write
from rlhf.errors import UserError
from rlhf.runtime.progress import progress

log = logging.getLogger("rlhf")

_RECORDS, _READ = "records.arrow", "read.json"
_MEND = BadRowError("").remedy
_DECIDING = (
    "codec",
    "files",
    "file_splits",
    "phrasings",
    "plain_yaml",
    "reading",
    "records",
    "store",
)  # modules, beside the readers


@dataclass(frozen=True)
class Refusal:
    """A row that cannot be used."""

    where: str
    problem: str
    remedy: str
    rows: int  # of the file, that it stands for


@dataclass
class Reading:
    """What became of a path's rows."""

    store: Store
    rows: int
    refused: list[Refusal]
    sha256: str  # of the files

    @property
    def rows_refused(self) -> int:
        return sum(refusal.rows for refusal in self.refused)


def read(
    config: DataConfig, path: str, key: str, bad_rows: BadRows, *, seed: int = 0, show_progress: bool = False
) -> Reading:
    """Reads `path`, or finds it read already, and hands its bad rows to `bad_rows`.

    key: the setting that names the path. seed: of the choice among phrasings, which nothing else here depends on.
    Raises UserError when nothing can be read, or no row can be used.
    """
    rows_to_records = _rows_to_records(config, seed)
    files = RowFiles(path, key, config, rows_to_records.table)
    if files.splits_in_words is not None:
        log.info("data: %s: %s", path, files.splits_in_words)
    settings = (config.source.value, config.columns, config.ignore, config.max_rows)
    name = _hash(files.sha256, files.names, *settings, rows_to_records.hash, _code())

    def make(folder: Path) -> None:
        refused: list[Refusal] = []
        bar = progress(files, f"reading {Path(path).name}", "row", show_progress, leave=False)
        rows = _Counted(bar, rows_to_records.unread)
        gathered = rows_to_records.gather(_objects(rows, refused.append))
        write(folder / _RECORDS, _records(gathered, rows_to_records.read, config.source.value, refused.append))
        if rows.count == 0:
            raise UserError(f"{path} holds no rows; set {key} to a file with one record a line.")
        described = {"rows": rows.count, "unread": rows.unread, "refused": [asdict(refusal) for refusal in refused]}
        (folder / _READ).write_text(json.dumps(described, ensure_ascii=False), encoding="utf-8")

        if len(refused) and sum(refusal.rows for refusal in refused) == rows.count:
            raise UserError(_unusable(config, path, files, refused[0], rows.count))

    folder = made_once(cache_folder(config.cache) / "records" / name, make)
    described = json.loads((folder / _READ).read_text(encoding="utf-8"))
    if described["unread"]:
        names = ", ".join(f"{name} (in {count} rows)" for name, count in described["unread"].items())
        log.info("data: %s has columns that nothing reads: %s", path, names)
    store = Store(folder / _RECORDS)
    refused = [Refusal(**refusal) for refusal in described["refused"]]
    for refusal in refused:
        bad_rows.add(refusal.where, refusal.problem, refusal.remedy, refusal.rows)
    return Reading(store, described["rows"], refused, files.sha256)


def _unusable(config: DataConfig, path: str, files: RowFiles, first: Refusal, count: int) -> str:
    """What to say of a path of which no row can be used, and as what its first row could be."""
    values = next(row.values for row in files)
    formats = []
    for source in DataSourceName:
        with contextlib.suppress(BadRowError, KeyError):  # KeyError: read from no file
            if isinstance(values, Mapping) and source != config.source and reader_of(source).read(values):
                formats.append(f"data={source.value}")
    other = f"it can be read as {' or '.join(formats)}" if formats else f"{first.remedy}, or choose another data=FORMAT"
    return (
        f"None of the {count} rows of {path} can be used as data={config.source.value}. {first.where}: "
        f"{first.problem}; {other}."
    )


@dataclass(frozen=True)
class _RowsToRecords:
    """How rows become records in this config."""

    read: Callable[[Row], Sequence[Record]]
    gather: Callable[[Iterable[Row]], Iterable[Row]]
    table: Table
    hash: str  # of what decides it beside the code and the config's columns
    unread: Callable[[Mapping[str, Any]], Iterable[str]] | None = None  # columns that the reader passes over


def _rows_to_records(config: DataConfig, seed: int) -> _RowsToRecords:
    if config.source == DataSourceName.phrasings:
        assert config.phrasings is not None, "the config requires templates for data=phrasings"
        phrasings = load_phrasings(config.phrasings)
        described = _hash(phrasings.sha256, seed, config.evaluation_fraction)
        return _RowsToRecords(_Phraser(phrasings, config, seed), iter, Table(), described)
    reader = reader_of(config.source)
    gather = _without(config.ignore, reader.gather or iter)

    def read_row(row: Row) -> Sequence[Record]:
        return reader.read(_renamed(row.values, config.columns))

    known = {*config.columns.values(), *config.ignore}

    def unread(values: Mapping[str, Any]) -> Iterable[str]:
        assert reader.unread is not None
        return (name for name in reader.unread(values) if name not in known)

    return _RowsToRecords(read_row, gather, reader.table, "", unread if reader.unread is not None else None)


def _without(
    ignored: Sequence[str], gather: Callable[[Iterable[Row]], Iterable[Row]]
) -> Callable[[Iterable[Row]], Iterable[Row]]:
    """`gather` of rows without the columns that the config says mean nothing."""
    if not ignored:
        return gather

    def kept(row: Row) -> Row:
        return replace(row, values={key: value for key, value in row.values.items() if key not in ignored})

    return lambda rows: gather(kept(row) for row in rows)


class _Phraser:
    """Rows of a task as demonstrations, in the words of a phrasing."""

    def __init__(self, phrasings: Phrasings, config: DataConfig, seed: int) -> None:
        self._phrasings = phrasings
        self._threshold = int(config.evaluation_fraction * 2**64)
        self._seed = seed

    def __call__(self, row: Row) -> Sequence[Record]:
        task = self._phrasings.task_of(row.values, Path(row.file).name)  # a hub id ends with the name
        held_out = row.evaluation
        if held_out is None:
            held_out = place_of(self._phrasings.row_key(row.values, task=task)) < self._threshold
        return self._phrasings.read(row.values, task=task, number=row.number, seed=self._seed, held_out=held_out)


def _renamed(values: Mapping[str, Any], columns: Mapping[str, str]) -> Mapping[str, Any]:
    """The row under our names for its columns. Raises BadRowError when it lacks one that the config names."""
    if not columns:
        return values
    missing = next(((ours, theirs) for ours, theirs in columns.items() if theirs not in values), None)
    if missing is not None:
        raise BadRowError(
            f"it has no column `{missing[1]}`, only {', '.join(f'`{name}`' for name in values)}",
            f"set data.columns.{missing[0]} to one of them",
        )
    return {**values, **{ours: values[theirs] for ours, theirs in columns.items()}}


class _Counted:
    """Rows of the files that went by, and of the columns that nothing reads how many rows had one."""

    def __init__(self, rows: Iterable[Row], unread: Callable[[Mapping[str, Any]], Iterable[str]] | None) -> None:
        self._rows = rows
        self._unread = unread
        self.count = 0
        self.unread: Counter[str] = Counter()

    def __iter__(self) -> Iterator[Row]:
        for row in self._rows:
            self.count += 1
            if self._unread is not None and isinstance(row.values, Mapping):
                self.unread.update(self._unread(row.values))
            yield row


def _objects(rows: Iterable[Row], refuse: Callable[[Refusal], None]) -> Iterator[Row]:
    """The rows that are objects."""
    for row in rows:
        if isinstance(row.values, Mapping):
            yield row
        else:
            problem = row.values.problem if isinstance(row.values, Broken) else None
            refuse(Refusal(row.where, problem or f"it is {shorten(row.values)}, not a JSON object", _MEND, row.merged))


def _records(
    rows: Iterable[Row], read: Callable[[Row], Sequence[Record]], source: str, refuse: Callable[[Refusal], None]
) -> Iterator[Encoded]:
    for row in rows:
        try:
            records = read(row)
            assert records, f"the reader of {source} gave nothing for {row.where}"
            encoded = _encoded(_finished(records, row, source))
        except BadRowError as error:
            refuse(Refusal(row.where, str(error), error.remedy, row.merged))
            continue
        yield from encoded


def _encoded(records: Iterable[Record]) -> list[Encoded]:
    """BadRowError for half a character (a lone surrogate, which JSON can spell and UTF-8 cannot)."""
    try:
        return [encode(record) for record in records]
    except UnicodeEncodeError:
        raise BadRowError("it holds half a character, a lone surrogate") from None


def _finished(records: Sequence[Record], row: Row, source: str) -> Iterator[Record]:
    """With ids, splits that follow the files', and rankings in an order that tells nothing."""
    prompts = list(dict.fromkeys(prompt_of(r).messages for r in records if not isinstance(r, Document)))
    for record in records:
        if isinstance(record, Document):
            yield record
            continue
        prompt = prompt_of(record)
        number = f":{prompts.index(prompt.messages)}" if len(prompts) > 1 else ""
        split = prompt.split
        if split is None and row.evaluation is not None:
            split = Split.evaluation if row.evaluation else Split.train
        prompt = replace(prompt, id=prompt.id or f"{source}:{row.file}:{row.number}{number}", split=split)
        if isinstance(record, Prompt):
            yield prompt
        elif isinstance(record, Demonstration):
            yield replace(record, prompt=prompt)
        else:
            yield _shuffled(replace(record, prompt=prompt))


def _shuffled(ranking: Ranking) -> Ranking:
    """Completions by a hash of their words: files list them best first, which nobody downstream may learn from."""
    order = sorted(range(len(ranking.completions)), key=lambda i: place_of(ranking.completions[i]))

    def arranged(values: Sequence[Any]) -> tuple[Any, ...]:
        return tuple(values[i] for i in order) if values else ()

    return Ranking(
        ranking.prompt,
        arranged(ranking.completions),
        arranged(ranking.ranks),
        arranged(ranking.margins),
        arranged(ranking.gold_scores),
    )


def _hash(*parts: Any) -> str:
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _code() -> str:
    """Of the modules that decide what a row becomes, so that what an older version read is not taken for it."""
    here = Path(__file__).parent
    files = [*sorted((here / "readers").glob("*.py")), *(here / f"{n}.py" for n in _DECIDING)]
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

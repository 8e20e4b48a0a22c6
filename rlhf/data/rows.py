"""Rows of a published file, as they stand."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from rlhf.config import DataConfig, DataSourceName
from rlhf.data.files import Broken, Row, RowFiles, Table, shorten
from rlhf.errors import UserError


def rows_of(path: str, key: str) -> Iterator[Row]:
    """The file's rows. Raises UserError for one that is no object: a number would be wrong without it."""
    for row in RowFiles(path, key, DataConfig(source=DataSourceName.jsonl, path=path), Table()):
        if not isinstance(row.values, Mapping):
            problem = row.values.problem if isinstance(row.values, Broken) else f"it is {shorten(row.values)}"
            raise UserError(f"{row.where}: {problem}; set {key} to a whole file.")
        yield row

"""One module a format: a pure function from a raw row to records."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from rlhf.config import DataSourceName
from rlhf.data.files import Row, Table
from rlhf.data.records import Record


@dataclass(frozen=True)
class Reader:
    """How one format is read."""

    read: Callable[[Mapping[str, Any]], Sequence[Record]]  # at least one record, or BadRowError
    gather: Callable[[Iterable[Row]], Iterator[Row]] | None = None  # rows that belong together, as one
    unread: Callable[[Mapping[str, Any]], Iterable[str]] | None = None  # columns that it passes over; None: not told
    table: Table = field(default_factory=Table)  # how its .csv and .tsv files are written


def reader_of(source: DataSourceName) -> Reader:
    """The reader of a format that is read from files. Raises KeyError for a source that is not."""
    from rlhf.data.readers import (
        alpaca,
        dolly,
        flan,
        flan_cot,
        gpt4_llm,
        helpsteer,
        hh_rlhf,
        instructgpt,
        jsonl,
        lima,
        openassistant,
        openhermes,
        own,
        safe_rlhf,
        self_instruct,
        sharegpt,
        shp,
        slimorca,
        summarize_from_feedback,
        t0,
        ultrachat,
        ultrafeedback,
        webgpt,
    )

    return {
        DataSourceName.jsonl: Reader(jsonl.read, own.gather, jsonl.unread),
        DataSourceName.alpaca: Reader(alpaca.read),
        DataSourceName.dolly: Reader(dolly.read),
        DataSourceName.flan: Reader(flan.read),
        DataSourceName.flan_cot: Reader(flan_cot.read, table=Table(flan_cot.COLUMNS, quoting=False)),
        DataSourceName.gpt4_llm: Reader(gpt4_llm.read),
        DataSourceName.instructgpt: Reader(instructgpt.read, instructgpt.gather),
        DataSourceName.lima: Reader(lima.read),
        DataSourceName.openassistant: Reader(openassistant.read, openassistant.gather),
        DataSourceName.openhermes: Reader(openhermes.read),
        DataSourceName.self_instruct: Reader(self_instruct.read),
        DataSourceName.sharegpt: Reader(sharegpt.read),
        DataSourceName.slimorca: Reader(slimorca.read),
        DataSourceName.t0: Reader(t0.read),
        DataSourceName.ultrachat: Reader(ultrachat.read),
        DataSourceName.helpsteer: Reader(helpsteer.read, helpsteer.gather),
        DataSourceName.hh_rlhf: Reader(hh_rlhf.read),
        DataSourceName.safe_rlhf: Reader(safe_rlhf.read),
        DataSourceName.safe_rlhf_safer: Reader(safe_rlhf.read_safer),
        DataSourceName.shp: Reader(shp.read),
        DataSourceName.summarize_from_feedback: Reader(summarize_from_feedback.read),
        DataSourceName.ultrafeedback: Reader(ultrafeedback.read),
        DataSourceName.webgpt: Reader(webgpt.read),
    }[source]

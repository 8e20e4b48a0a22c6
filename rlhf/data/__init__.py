"""Records from files or the sandbox, and the ids that models read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from rlhf.config import DataConfig, DataSourceName
from rlhf.data.records import DataSource


def load_source(config: DataConfig, seed: int, bad_rows_path: Path | None = None) -> DataSource:
    """The data source that the config names, read whole.

    bad_rows_path: where skipped rows are listed, afresh (data.on_bad_row=skip).
    Raises UserError naming file, row and key for what cannot be used.
    """
    if config.source == DataSourceName.sandbox:
        from rlhf.sandbox.source import SandboxSource

        return SandboxSource(config.sandbox, seed)
    return _load_files(config, bad_rows_path)


def _load_files(config: DataConfig, bad_rows_path: Path | None) -> DataSource:
    from rlhf.data import alpaca, hh_rlhf, jsonl, self_instruct
    from rlhf.data.bad_rows import BadRows
    from rlhf.data.files import RowReader
    from rlhf.data.source import FileSource

    assert config.path is not None, "the config requires a path for every source but the sandbox"
    readers = {
        DataSourceName.hh_rlhf: hh_rlhf.read,
        DataSourceName.self_instruct: self_instruct.read,
        DataSourceName.alpaca: alpaca.read,
        DataSourceName.jsonl: jsonl.read,
    }
    bad_rows = BadRows(config.on_bad_row, bad_rows_path)
    rows = RowReader(config.path, "data.path", bad_rows, config.max_rows)
    records = readers[config.source](rows, bad_rows)
    read: dict[str, Any] = {"sha256": rows.sha256, "rows_read": rows.rows, "rows_refused": bad_rows.count}
    if config.prompts_path is not None:
        prompt_rows = RowReader(config.prompts_path, "data.prompts_path", bad_rows, config.max_rows)
        if config.source == DataSourceName.jsonl:
            records.prompts = jsonl.read(prompt_rows, bad_rows, prompts_only=True).prompts
        else:
            records.prompts = readers[config.source](prompt_rows, bad_rows).prompts
        read["prompts_sha256"] = prompt_rows.sha256
    return FileSource(config.source.value, config.path, records, config.evaluation_fraction, read)

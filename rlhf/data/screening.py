"""Which records the quality tools leave, found once for a store and a config."""

from __future__ import annotations

import hashlib
import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from rlhf.config import DataConfig, QualityConfig
from rlhf.data.bad_rows import BadRows
from rlhf.data.quality.screen import screen
from rlhf.data.reading import Reading
from rlhf.data.records import prompt_of
from rlhf.data.source import held_out
from rlhf.data.store import cache_folder, made_once


def screened(reading: Reading, config: DataConfig, bad_rows: BadRows) -> np.ndarray:
    """(records,) bool, True where a record stays; why the others go is listed in `bad_rows`."""
    store = reading.store
    kept = np.ones(len(store), dtype=bool)
    if config.quality == QualityConfig():
        return kept
    records = store.pick(np.arange(len(store)), lambda record: record)
    evaluation = held_out(reading, config)

    def make(folder: Path) -> None:
        reasons = screen(records, evaluation, config.quality)
        left_out = {index: reason for index, reason in enumerate(reasons) if reason is not None}
        (folder / "left_out.json").write_text(json.dumps(left_out, ensure_ascii=False), encoding="utf-8")

    decides = [store.name, asdict(config.quality), config.evaluation_fraction, config.split_by_user, _code()]
    name = hashlib.sha256(json.dumps(decides).encode()).hexdigest()
    folder = made_once(cache_folder(config.cache) / "screened" / name, make)
    left_out = json.loads((folder / "left_out.json").read_text(encoding="utf-8"))
    for index, reason in left_out.items():
        kept[int(index)] = False
        bad_rows.leave_out(_name(records[int(index)], int(index)), reason)
    return kept


def _name(record: Any, index: int) -> str:
    prompt = prompt_of(record)
    return f"text {index + 1}" if prompt is None else f"the record of {prompt.id}"


def _code() -> str:
    files = sorted((Path(__file__).parent / "quality").glob("*.py"))
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()

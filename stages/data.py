"""A look at data before training on it: what was understood of the rows, their lengths, what a model would learn."""

from __future__ import annotations

import dataclasses
import logging

import datasets

from rlhf.chain.log import logging_to
from rlhf.chain.place import run_folder
from rlhf.chain.source import load_source
from rlhf.config import Config, OnBadRow
from rlhf.data.templates import ChatTemplate
from rlhf.inspection.measure import inspect
from rlhf.inspection.page import page
from rlhf.inspection.text import in_colour, text
from rlhf.models.tokenizers import load_tokenizer
from rlhf.runtime.files import write_json_atomic, write_text_atomic
from rlhf.runtime.folder import StageFolder

log = logging.getLogger("rlhf")


def run(config: Config) -> None:
    """Prints what is in config.data; writes report.html, report.json and bad_rows.jsonl into the run's data/."""
    datasets.disable_progress_bars()
    folder = run_folder(config) / "data"
    folder.mkdir(parents=True, exist_ok=True)
    bad_rows_path = folder / "bad_rows.jsonl"
    # Bad rows are what one wants to see here, all of them.
    data = dataclasses.replace(config.data, on_bad_row=OnBadRow.skip)
    with logging_to(StageFolder(folder)):
        source = load_source(data, config.seed, bad_rows_path, show_progress=config.tracker.progress)
    tokenizer = load_tokenizer(config.sft.base or config.model.path, trust_remote_code=config.model.trust_remote_code)
    found = inspect(config, source, ChatTemplate(tokenizer, config.data.template), bad_rows_path)

    write_json_atomic(folder / "report.json", found.values())
    write_text_atomic(folder / "report.html", page(found))
    print(text(found, colour=in_colour()))
    print(f"\nreport: {folder / 'report.html'}")
    if bad_rows_path.exists():
        print(f"rows left out: {bad_rows_path}")

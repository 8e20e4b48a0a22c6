"""Nothing that a file or a model says reaches the terminal as anything but text."""

from __future__ import annotations

import dataclasses
import json
import logging
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rlhf.chain.log import logging_to
from rlhf.cli.terminal import say
from rlhf.config import CompareConfig, Config, DataConfig, DataSourceName, RunConfig
from rlhf.runtime.folder import StageFolder
from rlhf.runtime.printable import printable
from stages import data, published
from tests.support.tiny import save_tiny_model

ATTACK = "\x1b[2J\x1b]0;owned\x07\x9b31m\r"


@given(st.text())
def test_only_line_ends_and_tabs_of_all_control_characters_stay(text: str) -> None:
    shown = printable(text)
    assert all(c.isprintable() or c in "\n\t" for c in shown)
    assert printable(shown) == shown
    assert printable("plain, ünïcode 日本\n\tand all") == "plain, ünïcode 日本\n\tand all"


def test_refusals_and_logs_are_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    say(f"no {ATTACK}")
    with logging_to(StageFolder(tmp_path)):
        logging.getLogger("rlhf").info("the model %s", ATTACK)
    said = capsys.readouterr()
    for text in (said.err, said.out, (tmp_path / "log.txt").read_text()):
        assert "\\x1b[2J" in text
        assert not {"\x1b", "\x07", "\x9b", "\r"} & set(text)


def test_ids_names_and_columns_of_files_are_printable(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = RunConfig(root=str(tmp_path / "runs"))
    verdicts = tmp_path / "verdicts.json"
    rows = [
        {
            "instruction": f"q{i}{ATTACK}",
            "output_1": "a",
            "generator_1": f"old{ATTACK}",
            "output_2": "b",
            "generator_2": f"new{ATTACK}",
            "preference": 1 + i % 2,
        }
        for i in range(6)
    ]
    verdicts.write_text(json.dumps(rows))
    published.run(Config(run=run, compare=CompareConfig(verdicts=str(verdicts))))
    own = tmp_path / "own.jsonl"
    lines = [
        {"prompt": f"q{i}", "response": ATTACK + "a", "id": f"i{i}{ATTACK}", f"topic{ATTACK}": 1} for i in range(9)
    ]
    own.write_text("".join(json.dumps(line) + "\n" for line in [*lines, {f"bad{ATTACK}": 1}]))
    settings = DataConfig(source=DataSourceName.jsonl, path=str(own), cache=str(tmp_path / "cache"))
    config = dataclasses.replace(Config(run=run), data=settings)
    config.model.path = save_tiny_model(tmp_path / "base", "llama")
    data.run(config)
    said = capsys.readouterr().out
    assert "new\\x1b[2J" in said
    assert "columns that nothing reads: topic\\x1b" in said
    assert not {"\x1b", "\x07", "\x9b", "\r"} & set(said)

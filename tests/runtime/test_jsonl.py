"""Lines that a disk has lost or damaged cost themselves alone, and somebody is told."""

from __future__ import annotations

import logging
from pathlib import Path

import pytest

from rlhf.runtime.jsonl import JsonLines, read_jsonl


def written(path: Path, count: int) -> JsonLines:
    lines = JsonLines(path)
    for step in range(count):
        lines.append([{"step": step, "train/loss": 1.0}])
    return lines


@pytest.mark.parametrize("damage", [b"\x00" * 30, b"\xff\xfe\xff", b'{"step": 1, "tra', b"[1]", b"garbage"])
def test_a_damaged_line_is_left_out_with_a_warning(
    tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, 4).close()
    lines = path.read_bytes().split(b"\n")
    path.write_bytes(b"\n".join([lines[0], damage, *lines[2:]]))
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        assert [row["step"] for row in read_jsonl(path)] == [0, 2, 3]
    assert "line 2 is damaged" in caplog.text


def test_a_torn_last_line_is_no_damage(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    written(path, 2).close()
    path.write_bytes(path.read_bytes() + b'{"step": 2, "train')
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        assert len(read_jsonl(path)) == 2
    assert caplog.messages == []


def test_lines_that_are_gone_are_missed_when_a_run_goes_on(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "metrics.jsonl"
    lines = written(path, 6)
    kept = path.read_text().splitlines(keepends=True)
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        lines.rewind(5, 6)
        assert caplog.messages == []
        path.write_text("".join(kept[:2]))
        lines.rewind(5, 6)
    assert "has lost 4 of the 6 lines" in caplog.text
    lines.append([{"step": 6}])
    assert [row["step"] for row in read_jsonl(path)] == [0, 1, 6]

"""tests/support/kills.py, in short: stages that are killed and resumed end with the bits of those that were not."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import kills


@pytest.mark.slow
def test_killed_stages_end_with_the_bits_of_those_that_were_never_stopped(tmp_path: Path) -> None:
    words = [sys.executable, str(Path(kills.__file__)), "--kills", "9", "--work", str(tmp_path)]
    done = subprocess.run(words, cwd=kills.ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("the same bits") >= 3
    assert "DIFFERS" not in done.stdout


def test_a_difference_is_found(tmp_path: Path) -> None:
    for name in ("one", "other"):
        (tmp_path / name / "model").mkdir(parents=True)
        (tmp_path / name / "model" / "model.safetensors").write_bytes(b"weights")
        (tmp_path / name / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0, "time/train_s": 1.0}\n' * 2)
    assert kills.differences(tmp_path / "one", tmp_path / "other") == []
    (tmp_path / "other" / "model" / "model.safetensors").write_bytes(b"Weights")
    (tmp_path / "other" / "metrics.jsonl").write_text('{"step": 1, "train/loss": 2.0, "time/train_s": 3.0}\n')
    assert kills.differences(tmp_path / "one", tmp_path / "other") == [
        "model/model.safetensors",
        "metrics.jsonl, line 2 (2 and 1 lines)",
    ]

"""A disk that is full or cannot be written is one sentence, and nothing that was saved before is lost."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
WORDS = [
    *("model=sandbox-s", "launch.device=cpu", "launch.threads=1", "tracker.progress=false", "run.save_minutes=0.01"),
    *("data.sandbox.demonstrations=300", "data.sandbox.pretraining_documents=2000", "sft.epochs=2"),
    *("sft.select_by=last", "stage=sft"),
]


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=64m", "tmpfs", folder], capture_output=True).returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", "-l", folder], check=True)


def rlhf(root: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    words = [sys.executable, "-m", "rlhf", *WORDS, f"run.root={root}"]
    return subprocess.run(words, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)


@pytest.mark.slow
def test_training_goes_on_after_the_disk_was_full_and_after_it_was_read_only(disk: Path, tmp_path: Path) -> None:
    assert rlhf(tmp_path / "whole").returncode == 0
    folder = disk / "demo" / "sft"

    newest = max((tmp_path / "whole/demo/sft/checkpoints").iterdir(), key=lambda path: path.stat().st_mtime)
    checkpoint = sum(file.stat().st_size for file in newest.iterdir())
    # The first checkpoint fits, the second does not.
    (disk / "filler").write_bytes(b"\0" * ((64 << 20) - int(1.6 * checkpoint)))
    full = rlhf(disk)
    assert full.returncode == 2, full.stderr
    assert "The disk is full" in full.stderr
    assert str(folder) in full.stderr
    assert "Traceback" not in full.stderr
    assert json.loads((folder / "manifest.json").read_text())["status"] != "complete"

    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    read_only = rlhf(disk)
    assert read_only.returncode == 2, read_only.stderr
    assert "cannot be written" in read_only.stderr
    assert str(disk) in read_only.stderr
    assert "Traceback" not in read_only.stderr

    subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
    (disk / "filler").unlink()
    done = rlhf(disk)
    assert done.returncode == 0, done.stderr
    for name in ("model.safetensors", "config.json"):
        assert (folder / "model" / name).read_bytes() == (tmp_path / "whole/demo/sft/model" / name).read_bytes()

"""A checkpoint is used when it is what was written, else the one before it, and somebody is told."""

from __future__ import annotations

import logging
import subprocess
from pathlib import Path

import pytest

from rlhf.runtime import checkpoints


def write(parent: Path, step: int, *, sealed: bool = True) -> Path:
    folder = parent / f"step-{step}"
    (folder / "more").mkdir(parents=True)
    (folder / "policy.safetensors").write_bytes(bytes(range(256)) * 10)
    (folder / "more" / "state.json").write_text(f'{{"step": {step}}}')
    if sealed:
        checkpoints.seal(folder)
    return folder


def test_the_newest_whole_one_is_used(tmp_path: Path) -> None:
    assert checkpoints.newest(tmp_path, "step") is None
    for step in (8, 12, 100):
        write(tmp_path, step)
    (tmp_path / "step-best").mkdir()
    assert checkpoints.newest(tmp_path, "step") == (100, tmp_path / "step-100")


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda folder: (folder / "SHA256SUMS").unlink(), "no SHA256SUMS"),
        (lambda folder: (folder / "SHA256SUMS").write_text(""), "SHA256SUMS is empty"),
        (lambda folder: (folder / "SHA256SUMS").write_bytes(b"\xff\xfe" * 40), "SHA256SUMS is no text"),
        (
            lambda folder: (folder / "SHA256SUMS").write_text(
                (folder / "SHA256SUMS").read_text().split("\n")[0] + "\n"
            ),
            "says nothing of policy.safetensors",
        ),
        (lambda folder: (folder / "policy.safetensors").write_bytes(b"\0" * 2560), "policy.safetensors is not what"),
        (lambda folder: (folder / "policy.safetensors").unlink(), "policy.safetensors is gone"),
        (lambda folder: (folder / "more" / "state.json").write_text("{}"), "more/state.json is not what"),
    ],
)
def test_a_damaged_one_is_passed_over_with_a_warning(
    harm: object, reason: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write(tmp_path, 8)
    harm(write(tmp_path, 12))  # type: ignore[operator]
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        assert checkpoints.newest(tmp_path, "step") == (8, tmp_path / "step-8")
    assert len(caplog.records) == 1
    assert "step-12 is damaged" in caplog.text
    assert reason in caplog.text


def test_checksums_are_those_of_sha256sum(tmp_path: Path) -> None:
    folder = write(tmp_path, 1)
    checked = subprocess.run(["sha256sum", "-c", "SHA256SUMS"], cwd=folder, capture_output=True, text=True)
    assert checked.returncode == 0
    assert checked.stdout.count(": OK") == 2


def test_as_many_stay_as_asked(tmp_path: Path) -> None:
    for step in range(1, 13):
        write(tmp_path, step)
    checkpoints.drop_but_newest(tmp_path, "step", 3)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-10", "step-11", "step-12"]

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlhf.config import TrackerConfig
from rlhf.runtime import progress as progress_module
from rlhf.runtime.jsonl import json_value, read_jsonl
from rlhf.runtime.progress import progress
from rlhf.training.tracking import Tracker


def tracker(folder: Path, **config: Any) -> Tracker:
    return Tracker(folder, TrackerConfig(**config), stage="ppo", run_name="demo", resolved_config={"seed": 1})


def strict_lines(path: Path) -> list[dict[str, Any]]:
    """Parsed as a strict reader would: NaN and Infinity are not JSON."""

    def refuse(constant: str) -> None:
        raise ValueError(f"{constant} is not JSON")

    return [json.loads(line, parse_constant=refuse) for line in path.read_text(encoding="utf-8").splitlines()]


def test_each_log_is_one_line_that_is_on_disk_at_once(tmp_path: Path) -> None:
    with tracker(tmp_path) as run:
        run.log(1, {"train/loss": 2.5})
        run.log(2, {"train/loss": 2.0, "optim/lr": 1e-3})
        assert strict_lines(tmp_path / "metrics.jsonl") == [
            {"step": 1, "train/loss": 2.5},
            {"step": 2, "train/loss": 2.0, "optim/lr": 1e-3},
        ]


def test_non_finite_and_library_numbers_become_standard_json(tmp_path: Path) -> None:
    torch = pytest.importorskip("torch")
    with tracker(tmp_path) as run:
        run.log(
            1,
            {
                "a/nan": float("nan"),
                "a/inf": np.float32("inf"),
                "a/tensor": torch.tensor(1.5),
                "a/numpy": np.int64(3),
                "a/tensor_nan": torch.tensor(float("nan")),
            },
        )
    assert strict_lines(tmp_path / "metrics.jsonl") == [
        {"step": 1, "a/nan": None, "a/inf": None, "a/tensor": 1.5, "a/numpy": 3, "a/tensor_nan": None}
    ]


def test_a_metric_without_an_area_is_refused(tmp_path: Path) -> None:
    with tracker(tmp_path) as run, pytest.raises(AssertionError, match="area/quantity"):
        run.log(1, {"loss": 1.0})


def test_samples_keep_any_text(tmp_path: Path) -> None:
    odd = 'line\nbreak "quote" \u2028 \x00 日本 \ud800'
    with tracker(tmp_path) as run:
        run.samples(3, [{"prompt": odd, "response": "r", "scores": [1.0, float("nan")]}])
    [row] = read_jsonl(tmp_path / "samples.jsonl")
    assert row == {"step": 3, "prompt": odd, "response": "r", "scores": [1.0, None]}


def test_rewind_drops_later_steps_and_logging_goes_on(tmp_path: Path) -> None:
    with tracker(tmp_path) as run:
        for step in range(1, 6):
            run.log(step, {"train/loss": float(step)})
            run.samples(step, [{"prompt": "p", "response": str(step)}])
    with tracker(tmp_path) as run:
        run.rewind(3)
        run.log(4, {"train/loss": 40.0})
    assert [(row["step"], row["train/loss"]) for row in read_jsonl(tmp_path / "metrics.jsonl")] == [
        (1, 1.0),
        (2, 2.0),
        (3, 3.0),
        (4, 40.0),
    ]
    assert [row["step"] for row in read_jsonl(tmp_path / "samples.jsonl")] == [1, 2, 3]


def test_a_line_torn_by_a_kill_is_dropped_and_never_joined_to_the_next(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1, "train/loss": 1.0}\n{"step": 2, "train/lo')
    assert [row["step"] for row in read_jsonl(path)] == [1]
    with tracker(tmp_path) as run:
        run.log(2, {"train/loss": 2.0})
    assert [row["step"] for row in strict_lines(path)] == [1, 2]


def test_only_rank_zero_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RANK", "1")
    with tracker(tmp_path / "stage", tensorboard=True) as run:
        run.log(1, {"train/loss": 1.0})
        run.samples(1, [{"prompt": "p"}])
        run.rewind(0)
    assert not (tmp_path / "stage").exists()


def test_tensorboard_reads_back_what_was_logged_and_forgets_what_was_rewound(tmp_path: Path) -> None:
    accumulator_module = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    with tracker(tmp_path, tensorboard=True) as run:
        for step in range(1, 6):
            run.log(step, {"train/loss": float(step), "a/nan": float("nan")})
        run.rewind(3)
        run.log(4, {"train/loss": 40.0})
    accumulator = accumulator_module.EventAccumulator(str(tmp_path / "tensorboard"))
    accumulator.Reload()
    assert accumulator.Tags()["scalars"] == ["train/loss"]
    assert [(e.step, e.value) for e in accumulator.Scalars("train/loss")] == [(1, 1), (2, 2), (3, 3), (4, 40)]


def test_wandb_offline_keeps_numbers_and_samples_under_the_stage_folder(tmp_path: Path) -> None:
    pytest.importorskip("wandb")
    with tracker(tmp_path, wandb=True) as run:
        run.log(1, {"train/loss": 2.5})
        run.samples(1, [{"prompt": "p", "response": "r"}])
    [record] = (tmp_path / "wandb").glob("offline-run-*/run-*.wandb")
    data = record.read_bytes()
    assert b"train/loss" in data
    assert b"2.5" in data
    assert list((tmp_path / "wandb").rglob("*.table.json"))
    assert strict_lines(tmp_path / "metrics.jsonl") == [{"step": 1, "train/loss": 2.5}]


def test_importing_the_tracker_loads_no_heavy_library() -> None:
    code = (
        "import sys, rlhf.training.tracking; print([m for m in ('torch', 'transformers', 'wandb') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_json_value_handles_nested_containers() -> None:
    assert json_value({1: (np.float64(0.5), Path("a"))}) == {"1": [0.5, "a"]}


def test_off_a_terminal_the_bar_writes_whole_lines_without_control_characters(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    bar = progress(range(3), "ppo", "iteration")
    monkeypatch.setattr(bar, "line_every_s", 0.0)
    for step in bar:
        bar.show({"objective/kl": 1.0 + step})
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 4  # one an update here, and the last
    assert not re.search(r"[\r\x1b]", "".join(lines))
    assert lines[-1].startswith("ppo: 100%")
    assert "3/3" in lines[-1]
    assert "iteration" in lines[-1]
    assert "kl=3" in lines[-1]


def test_on_a_terminal_the_bar_shows_rate_time_left_and_metrics(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(progress_module.sys, "stderr", terminal)
    with progress(4, "sft", "step") as bar:
        bar.update(2)
        bar.show({"train/loss": 0.25})
        bar.update(2)
    assert "sft: 100%" in terminal.getvalue()
    assert "loss=0.25" in terminal.getvalue()
    assert "\r" in terminal.getvalue()


def test_a_disabled_bar_is_silent_and_still_iterates(capsys: pytest.CaptureFixture[str]) -> None:
    assert list(progress([1, 2, 3], "x", enabled=False)) == [1, 2, 3]
    assert capsys.readouterr().err == ""


def test_a_resumed_bar_counts_earlier_work_but_not_in_its_rate(capsys: pytest.CaptureFixture[str]) -> None:
    with progress(100, "ppo", initial=99) as bar:
        bar._started_s -= 10  # as if the one remaining unit took ten seconds
        bar.update()
    line = capsys.readouterr().err
    assert "100/100" in line
    assert re.search(r"(9\.9|10)\S* ?s/ step", line)

"""`launch.gpus_per_node`: one command starts its own processes, and ends all of them when one fails."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rlhf.cli import launcher
from rlhf.config import Config, LaunchConfig

ROOT = Path(__file__).resolve().parents[2]
TINY = ("+debug=tiny", "model=sandbox-s", "launch.gpus_per_node=2", "launch.threads=1", "launch.device=cpu")
# Asks for nothing but a failure on one rank, in the middle of its work.
FAILS_ON_RANK_1 = """
import os

def score(prompts, responses, records):
    if os.environ["RANK"] == "1":
        raise RuntimeError("rank 1 has had enough")
    return [0.0] * len(prompts)
"""


def rlhf(folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {k: v for k, v in os.environ.items() if k not in ("RANK", "WORLD_SIZE", "LOCAL_RANK")}
    environment |= {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [sys.executable, "-m", "rlhf", *words], cwd=folder, env=environment, capture_output=True, text=True, timeout=400
    )


def test_processes_are_started_only_where_nobody_has_started_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WORLD_SIZE", raising=False)
    assert launcher.needed(Config(launch=LaunchConfig(gpus_per_node=2)))
    assert not launcher.needed(Config())
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert not launcher.needed(Config(launch=LaunchConfig(gpus_per_node=2)))


@pytest.mark.slow
def test_the_chain_runs_on_two_processes_from_one_command(tmp_path: Path) -> None:
    done = rlhf(tmp_path, *TINY, "run.name=two")
    assert done.returncode == 0, done.stdout + done.stderr
    for stage in ("sft", "reward", "ppo", "compare"):
        manifest = json.loads((tmp_path / "runs/two" / stage / "manifest.json").read_text())
        assert manifest["status"] == "complete"
        assert manifest["hardware"]["processes"] == 2
    assert done.stdout.count("Report: ") == 1  # one rank speaks


@pytest.mark.slow
def test_when_one_rank_fails_all_end_with_its_traceback(tmp_path: Path) -> None:
    (tmp_path / "failing.py").write_text(FAILS_ON_RANK_1)
    assert rlhf(tmp_path, *TINY, "stage=sft", "run.name=dies").returncode == 0
    started = time.monotonic()
    done = rlhf(tmp_path, *TINY, "stage=ppo", "run.name=dies", "ppo.reward_fn=failing:score")
    assert time.monotonic() - started < 90
    assert done.returncode == 1
    said = done.stderr
    assert "RuntimeError: rank 1 has had enough" in said
    assert "rlhf: rank 1: RuntimeError: rank 1 has had enough" in said
    left = subprocess.run(["pgrep", "-f", "run.name=dies"], capture_output=True, text=True).stdout.split()
    assert left == []


@pytest.mark.slow
def test_a_mistake_is_one_sentence_though_every_rank_makes_it(tmp_path: Path) -> None:
    done = rlhf(tmp_path, *TINY, "stage=ppo", "run.name=none")
    assert done.returncode == 2
    assert done.stderr.count("rlhf: ") == 1
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_an_interrupt_ends_all_ranks_with_one_sentence(tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    words = ["model=sandbox-s", "launch.gpus_per_node=2", "launch.threads=1", "launch.device=cpu", "stage=sft"]
    process = subprocess.Popen(
        [sys.executable, "-m", "rlhf", *words, "run.name=interrupted"],
        cwd=tmp_path,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,  # a process group of its own, as a terminal gives it
    )
    until = time.monotonic() + 120
    while not (tmp_path / "runs/interrupted/sft/metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.2)
    os.killpg(process.pid, signal.SIGINT)
    said, _ = process.communicate(timeout=60)
    assert process.returncode == 130, said
    assert "rlhf: finishing this step and saving it" in said
    assert re.search(r"rlhf: Stopped after step \d+, which is saved\. The same command goes on from there\.", said)
    assert said.count("rlhf: ") == 2
    assert "SignalException" not in said
    time.sleep(1)
    assert subprocess.run(["pgrep", "-f", "run.name=interrupted"], capture_output=True).stdout == b""


@pytest.mark.slow
def test_one_process_that_nobody_launched_runs_the_chain_with_deepspeed(tmp_path: Path) -> None:
    words = [word for word in TINY if not word.startswith("launch.gpus_per_node")]
    done = rlhf(tmp_path, *words, "zero=2", "run.name=alone")
    assert done.returncode == 0, done.stdout + done.stderr

"""Two nodes, each a network namespace with an address of its own: rendezvous, ZeRO-2, a killed node, a restart."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ADDRESSES = {"rlhf-a": "10.77.0.1", "rlhf-b": "10.77.0.2"}
WORDS = [
    *("stage=sft", "model=sandbox-s", "zero=2", "launch.device=cpu", "launch.threads=1", "tracker.progress=false"),
    *("data.sandbox.demonstrations=300", "data.sandbox.pretraining_documents=2000", "sft.epochs=2"),
    *("sft.select_by=last", "run.save_minutes=0.01"),
]


@pytest.fixture
def nodes() -> Iterator[None]:
    """Two namespaces joined by a pair of virtual interfaces."""
    first, second = ADDRESSES
    made = subprocess.run(["ip", "netns", "add", first], capture_output=True) if os.geteuid() == 0 else None
    if made is None or made.returncode != 0:
        pytest.skip("network namespaces need root and iproute2")
    try:
        subprocess.run(["ip", "netns", "add", second], check=True)
        pair = ["ip", "link", "add", "veth0", "netns", first, "type", "veth", "peer", "name", "veth0", "netns", second]
        subprocess.run(pair, check=True)
        for name, address in ADDRESSES.items():
            for words in (["addr", "add", f"{address}/24", "dev", "veth0"], ["link", "set", "veth0", "up"]):
                subprocess.run(["ip", "-n", name, *words], check=True)
            subprocess.run(["ip", "-n", name, "link", "set", "lo", "up"], check=True)
        yield
    finally:
        for name in ADDRESSES:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)


def start(node: str, folder: Path, run: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(ROOT),
        "OMP_NUM_THREADS": "1",
        "NODES": "2",
        "GPUS": "1",
        "HOST": f"{ADDRESSES['rlhf-a']}:29577",
        "LOCAL_ADDR": ADDRESSES[node],
        "GLOO_SOCKET_IFNAME": "veth0",
    }
    return subprocess.Popen(
        ["ip", "netns", "exec", node, str(ROOT / "launch" / "torchrun.sh"), *WORDS, f"run.name={run}"],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(processes: list[subprocess.Popen[str]]) -> None:
    for process in processes:
        said, _ = process.communicate(timeout=300)
        assert process.returncode == 0, said


def lines(folder: Path) -> int:
    path = folder / "metrics.jsonl"
    return len(path.read_text().splitlines()) if path.exists() else 0


@pytest.mark.slow
def test_a_killed_node_ends_the_other_and_both_go_on_to_the_same_bits(nodes: None, tmp_path: Path) -> None:
    finish([start(node, tmp_path, "whole") for node in ADDRESSES])
    whole, killed = tmp_path / "runs/whole/sft", tmp_path / "runs/killed/sft"
    assert json.loads((whole / "manifest.json").read_text())["hardware"]["processes"] == 2

    first, second = (start(node, tmp_path, "killed") for node in ADDRESSES)
    until = time.monotonic() + 120
    while lines(killed) < lines(whole) // 2 and time.monotonic() < until:
        time.sleep(0.05)
    os.killpg(second.pid, signal.SIGKILL)
    for pid in subprocess.run(["ip", "netns", "pids", "rlhf-b"], capture_output=True, text=True).stdout.split():
        with contextlib.suppress(ProcessLookupError):  # torchrun's workers are sessions of their own
            os.kill(int(pid), signal.SIGKILL)
    began = time.monotonic()
    said, _ = first.communicate(timeout=90)
    assert time.monotonic() - began < 60
    assert first.returncode != 0, said
    assert subprocess.run(["ip", "netns", "pids", "rlhf-a"], capture_output=True, text=True).stdout == ""
    assert (lines(killed)) < lines(whole)

    finish([start(node, tmp_path, "killed") for node in ADDRESSES])
    assert lines(killed) == lines(whole)
    for name in ("model.safetensors", "config.json"):
        assert (whole / "model" / name).read_bytes() == (killed / "model" / name).read_bytes()

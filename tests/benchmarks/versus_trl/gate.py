"""The pipe between the parent and a worker: one line "go", one iteration, one JSON line of what it took.

Trainers own their loops, so the worker waits inside whatever its loop calls at the end of an iteration.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tests.benchmarks.versus_trl.workload import Job


class Gate:
    """The worker's end. `done` is called once before the first iteration, then after each."""

    def __init__(self, reports: int) -> None:
        self._reports = os.fdopen(reports, "w")
        self._started = 0.0

    def done(self, units: float = 0.0, **measured: float) -> None:
        """Report the iteration that has ended, its `units` of work and what else was measured; wait for the next."""
        seconds = time.perf_counter() - self._started
        line = {"seconds": seconds, "units": units, "peak_mb": _peak_mb(), **measured}
        self._reports.write(json.dumps(line) + "\n")
        self._reports.flush()
        if sys.stdin.readline().strip() != "go":
            os._exit(0)  # in the middle of a training loop that has no other end
        self._started = time.perf_counter()


def _peak_mb() -> float:
    """Peak resident memory of this process so far; from /proc, as getrusage also counts the parent's before exec."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


class Worker:
    """The parent's end: a process that has loaded what it needs, and does one iteration at each `iterate`."""

    def __init__(self, python: Path, job: Job, root: Path, threads: int) -> None:
        self.job = job
        read, write = os.pipe()
        environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        environment |= {
            "PYTHONPATH": str(Path(__file__).resolve().parents[3]),
            "HF_HUB_OFFLINE": "1",
            "WANDB_MODE": "disabled",
        }
        self._log = (root / f"{job.side}-{job.task}-{job.precision}.log").open("w")
        self._process = subprocess.Popen(
            [python, "-m", "tests.benchmarks.versus_trl.worker", str(root), str(write), json.dumps(asdict(job))],
            stdin=subprocess.PIPE,
            stdout=self._log,
            stderr=self._log,
            text=True,
            env=environment,
            pass_fds=(write,),
        )
        os.close(write)
        self._reports = os.fdopen(read)
        self._read()

    def _read(self) -> Mapping[str, Any]:
        line = self._reports.readline()
        if not line:
            raise RuntimeError(f"The worker of {self.job} died; see {self._log.name}.")
        report: Mapping[str, Any] = json.loads(line)
        return report

    def iterate(self) -> Mapping[str, Any]:
        self._tell("go")
        return self._read()

    def stop(self) -> None:
        self._tell("stop")
        self._process.wait()
        self._log.close()

    def _tell(self, word: str) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()

"""A worker process: `python -m tests.benchmarks.versus_trl.worker ROOT REPORTS JOB`, started by the parent."""

from __future__ import annotations

import importlib
import json
import os
import sys
from pathlib import Path

import torch

from tests.benchmarks.versus_trl.gate import Gate
from tests.benchmarks.versus_trl.workload import Job


def main() -> None:
    root, reports, job = Path(sys.argv[1]), int(sys.argv[2]), Job(**json.loads(sys.argv[3]))
    torch.set_num_threads(int(os.environ["OMP_NUM_THREADS"]))
    # Each side is imported alone: neither environment has the other's libraries.
    side = importlib.import_module(f"tests.benchmarks.versus_trl.{job.side}")
    getattr(side, job.task)(job, root, Gate(reports))


if __name__ == "__main__":
    main()

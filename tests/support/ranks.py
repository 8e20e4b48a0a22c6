"""Several processes of one run on this machine, as torchrun would start them.

They are forked from one that has imported the libraries, which costs more than what most tests then do.
"""

from __future__ import annotations

import multiprocessing
import os
import runpy
import socket
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 300
IMPORTED = [
    "deepspeed",
    "stages.pretrain",
    "tests.stages.test_ppo",
    "tests.stages.test_reward",
    "tests.stages.test_sft",
]


def run_ranks(count: int, module: str, *arguments: str) -> list[str]:
    """Runs `python -m MODULE ARGUMENTS` on `count` ranks to their end; what each printed. All must exit with 0."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(IMPORTED)
    with tempfile.TemporaryDirectory() as folder:
        outputs = [Path(folder) / str(rank) for rank in range(count)]
        started = []
        for rank, output in enumerate(outputs):
            environment = {
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": str(port),
                "WORLD_SIZE": str(count),
                "RANK": str(rank),
                "LOCAL_RANK": str(rank),
            }
            started.append(context.Process(target=_rank, args=(environment, output, module, arguments)))
            started[-1].start()
        try:
            for process in started:
                process.join(TIMEOUT_S)
        finally:
            for process in started:
                process.kill()
                process.join()
        printed = [output.read_text(encoding="utf-8") for output in outputs]
    for process, said in zip(started, printed, strict=True):
        assert process.exitcode == 0, said
    return printed


def _rank(environment: dict[str, str], output: Path, module: str, arguments: tuple[str, ...]) -> None:
    os.environ.update(environment)
    os.chdir(ROOT)
    with output.open("wb") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    sys.argv = [module, *arguments]
    runpy.run_module(module, run_name="__main__", alter_sys=True)

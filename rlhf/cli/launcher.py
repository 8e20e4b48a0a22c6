"""Several processes for one job on this machine, by torchrun's own launcher (torch.distributed.elastic).

A process that torchrun, `accelerate launch` or DeepSpeed's launcher started finds WORLD_SIZE and starts nothing.
"""

from __future__ import annotations

import contextlib
import json
import logging
import multiprocessing
import os
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from types import FrameType

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime import distributed
from rlhf.runtime.printable import printable
from rlhf.training.stopping import INTERRUPTED, SAME_WISH_S, handling, terminate_as_interrupt

# What each rank does: exit status, and a line that says what went wrong. It is sent to fresh processes by its name.
Work = Callable[[Config, tuple[str, ...]], tuple[int, str]]


def needed(config: Config) -> bool:
    """Whether the job is for several processes, and this is none of them."""
    return config.launch.gpus_per_node > 1 and "WORLD_SIZE" not in os.environ


def run(work: Work, config: Config, swept: tuple[str, ...]) -> tuple[int, str]:
    """`work` on launch.gpus_per_node processes; exit status and message of the first that failed, else of rank 0.

    When one ends badly the others are stopped. Raises UserError where there are fewer GPUs than processes, and
    KeyboardInterrupt when the ranks have ended because of SIGINT or SIGTERM: after their step, or at once on a second.
    """
    import torch
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import LaunchConfig, elastic_launch

    from rlhf.training.engine import pick_device

    count = config.launch.gpus_per_node
    cores = os.cpu_count() or 1
    if pick_device(config.launch).type == "cpu" and count > cores and not config.launch.oversubscribe:
        raise UserError(
            f"launch.gpus_per_node={count}, and there is no GPU here and {cores} processor cores; lower it, or set "
            "launch.oversubscribe=true to have processes share cores."
        )
    if pick_device(config.launch).type == "cuda" and torch.cuda.device_count() < count:
        raise UserError(
            f"launch.gpus_per_node={count}, and this machine has {torch.cuda.device_count()}; lower it, or use "
            "launch.device=cpu."
        )
    logging.getLogger("torch.distributed.elastic").setLevel(logging.CRITICAL)  # ranks say themselves what went wrong
    os.environ.setdefault("OMP_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // count)))
    settings = LaunchConfig(
        min_nodes=1,
        max_nodes=1,
        nproc_per_node=count,
        run_id=f"rlhf-{os.getpid()}",
        rdzv_backend="c10d",
        rdzv_endpoint="localhost:0",
        max_restarts=0,  # a resumed stage is exact, and a person should see why it stopped
        monitor_interval=0.5,
        start_method="spawn",
        signals_to_handle="SIGHUP,SIGQUIT",  # by ending the ranks; the others are passed on to them
    )
    with tempfile.TemporaryDirectory(prefix="rlhf-ranks-") as folder:
        try:
            with _passing_on_signals():
                elastic_launch(settings, _rank)(work, config, swept, folder)
        except SignalException as error:  # the ranks have been stopped
            raise KeyboardInterrupt from error
        except ChildFailedError as error:
            # What ranks say themselves: the one that failed first makes the others fail, all within one look at them.
            said = [Failure(**json.loads(path.read_text(encoding="utf-8"))) for path in Path(folder).glob("*.json")]
            killed = error.get_first_failure()[1].local_rank
            because = "was killed or crashed without a word; too little memory is the usual reason"
            first = min(said, key=lambda failure: failure.when, default=Failure(killed, 1, because, 0.0))
            if first.status == INTERRUPTED:
                raise KeyboardInterrupt(first.message) from error
            if not any(failure.rank == 0 and failure.message == first.message for failure in said):
                print(f"rlhf: rank {first.rank}: {printable(first.message)}", file=sys.stderr)
            return first.status, first.message
        return 0, ""


@contextmanager
def _passing_on_signals() -> Iterator[None]:
    """Inside, the first SIGINT or SIGTERM goes to the ranks, which finish their step; a later one ends them."""
    from torch.distributed.elastic.multiprocessing.api import SignalException

    first: float | None = None

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal first
        now = time.monotonic()
        if first is None:
            first = now
            for rank in multiprocessing.active_children():
                with contextlib.suppress(ProcessLookupError):
                    os.kill(rank.pid or 0, signal.SIGTERM)
        elif now - first > SAME_WISH_S:
            raise SignalException("asked twice", sigval=signal.Signals(number))

    with handling((signal.SIGINT, signal.SIGTERM), pass_on):
        yield


@dataclass(frozen=True)
class Failure:
    """How a rank ended."""

    rank: int
    status: int  # its exit status
    message: str
    when: float  # seconds since the epoch


def _rank(work: Work, config: Config, swept: tuple[str, ...], folder: str) -> None:
    """What each process does. One that fails must not return: the others would wait for it in their next reduction."""
    terminate_as_interrupt()
    try:
        status, message = work(config, swept)
    except KeyboardInterrupt as error:
        status, message = INTERRUPTED, str(error)
    if status:
        failure = Failure(int(os.environ["LOCAL_RANK"]), status, message, time.time())
        (Path(folder) / f"{failure.rank}.json").write_text(json.dumps(asdict(failure)), encoding="utf-8")
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)
    distributed.done()

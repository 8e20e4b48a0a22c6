"""What a stage says: on the terminal, and in its folder's log.txt."""

from __future__ import annotations

import contextlib
import logging
import sys
from collections.abc import Iterator, Mapping, Sequence

from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.folder import StageFolder
from rlhf.runtime.printable import PrintableFormatter

log = logging.getLogger("rlhf")


@contextlib.contextmanager
def logging_to(folder: StageFolder) -> Iterator[None]:
    """What `log` says goes to the terminal and to log.txt; debug messages, such as tracebacks, to log.txt alone."""
    if not is_main_process():
        yield
        return
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setLevel(logging.INFO)
    terminal.setFormatter(PrintableFormatter())
    file = logging.FileHandler(folder.log_path, encoding="utf-8", delay=True)
    file.setFormatter(PrintableFormatter("%(asctime)s %(levelname)s %(message)s"))
    level, propagates = log.level, log.propagate
    log.setLevel(logging.DEBUG)
    log.propagate = False
    raises, logging.raiseExceptions = logging.raiseExceptions, False  # a full disk must not print through the log
    log.addHandler(terminal)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(terminal)
        log.removeHandler(file)
        log.setLevel(level)
        log.propagate = propagates
        file.close()
        logging.raiseExceptions = raises


def follow(folder: StageFolder) -> None:
    """Inside of `logging_to`, after a folder was moved: what is said goes to the one that stands there now."""
    for handler in log.handlers:
        if isinstance(handler, logging.FileHandler):
            handler.close()  # and opens its path again with the next message


def headline(names: Sequence[str], metrics: Mapping[str, float]) -> str:
    """Those of the metrics that there are, as the end of a sentence."""
    shown = ", ".join(f"{name} {metrics[name]:.4g}" for name in names if metrics.get(name) is not None)
    return f": {shown}" if shown else ""


def duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"

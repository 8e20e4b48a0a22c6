"""Stopping between two steps: the first Ctrl-C or SIGTERM asks for it, a second one stops at once."""

from __future__ import annotations

import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from rlhf.runtime.distributed import any_rank, is_main_process

# A terminal sends its signal to a whole process group, and a launcher passes on to its ranks what it got itself:
# signals this close together are one wish.
SAME_WISH_S = 2.0
INTERRUPTED = 130  # exit status
_asked_at: float | None = None


class Stopped(KeyboardInterrupt):
    """The stage was asked to stop, has finished its step and saved; the text says how to go on."""

    def __init__(self, step: int) -> None:
        super().__init__(f"Stopped after step {step}, which is saved. The same command goes on from there.")


@contextmanager
def between_steps() -> Iterator[None]:
    """Inside, SIGINT and SIGTERM are a wish that `asked` tells of; one more raises KeyboardInterrupt, as outside."""
    global _asked_at
    _asked_at = None
    with handling((signal.SIGINT, signal.SIGTERM), _note):
        yield


@contextmanager
def handling(numbers: Sequence[int], handler: Callable[[int, FrameType | None], None]) -> Iterator[None]:
    """Inside, these signals go to `handler`; not in threads, where a sweep's launcher may run jobs: they get none."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in before.items():
            signal.signal(number, previous)


def terminate_as_interrupt() -> None:
    """From now on SIGTERM does outside of `between_steps` what Ctrl-C does: it ends the stage and says so."""

    def interrupt(number: int, frame: FrameType | None) -> None:
        raise KeyboardInterrupt

    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, interrupt)


def wanted() -> bool:
    """Whether this rank was asked to stop."""
    return _asked_at is not None


def asked() -> bool:
    """Whether any rank was asked to stop. Every rank has to ask, after the same step."""
    return any_rank(wanted())


def _note(number: int, frame: FrameType | None) -> None:
    global _asked_at
    now = time.monotonic()
    if _asked_at is None:
        _asked_at = now
        if is_main_process():
            print("\nrlhf: finishing this step and saving it; once more stops at once.", file=sys.stderr, flush=True)
    elif now - _asked_at > SAME_WISH_S:
        raise KeyboardInterrupt

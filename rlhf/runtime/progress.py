"""Bars with rate and time left, and the seconds that parts of a step take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sized
from types import TracebackType
from typing import Any, Generic, Self, TypeVar

from rlhf.runtime.distributed import is_main_process

Item = TypeVar("Item")


class Laps:
    """Wall seconds of parts that follow one another, as metrics."""

    def __init__(self) -> None:
        self.metrics: dict[str, float] = {}
        self._last = time.perf_counter()

    def end(self, part: str) -> None:
        """`part` ends here, and began where the one before it ended."""
        now = time.perf_counter()
        self.metrics[f"time/{part}_s"] = now - self._last
        self._last = now


class Progress(Generic[Item]):
    """A bar on stderr with count, rate, time left and a few metrics; on a pipe or in a file, a plain line now and then.

    Iterate over it, or call `update(n)` after n units of work. Draws nothing when `enabled` is False or off rank 0.
    """

    line_every_s = 15.0  # between the lines written where there is no terminal

    def __init__(
        self,
        items: Iterable[Item] | None,
        total: int | None,
        description: str,
        unit: str,
        *,
        enabled: bool,
        initial: int,
        leave: bool,
    ) -> None:
        self.count = self._initial = initial
        self.total = total
        self._items = items
        self._description = description
        self._unit = unit
        self._leave = leave
        self._postfix = ""
        self._enabled = enabled and is_main_process()
        self._started_s = self._last_line_s = time.monotonic()
        self._closed = False
        self._bar: Any = None
        if self._enabled and sys.stderr.isatty():
            from tqdm import tqdm

            self._bar = tqdm(
                total=total,
                desc=description,
                unit=" " + unit,
                initial=initial,
                leave=leave,
                dynamic_ncols=True,
                file=sys.stderr,
            )

    def __iter__(self) -> Iterator[Item]:
        assert self._items is not None, "this bar was given a total; call update()"
        try:
            for item in self._items:
                yield item
                self.update()
        finally:
            self.close()

    def update(self, n: int = 1) -> None:
        self.count += n
        if self._bar is not None:
            self._bar.update(n)
        elif self._enabled and time.monotonic() - self._last_line_s >= self.line_every_s:
            self._write_line()

    def show(self, metrics: Mapping[str, float]) -> None:
        """Puts these numbers behind the bar, by the last part of their names: {"objective/kl": 3.2} shows kl=3.2."""
        self._postfix = ", ".join(f"{name.rsplit('/', 1)[-1]}={value:.4g}" for name, value in metrics.items())
        if self._bar is not None:
            self._bar.set_postfix_str(self._postfix)

    def close(self) -> None:
        if self._closed:
            return
        self._closed = True
        if self._bar is not None:
            self._bar.close()
        elif self._enabled and self._leave:
            self._write_line()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _write_line(self) -> None:
        from tqdm import tqdm

        self._last_line_s = time.monotonic()
        # ncols=0 is tqdm's own text without the bar, so that a log and a terminal read alike.
        text = tqdm.format_meter(
            self.count,
            self.total,
            self._last_line_s - self._started_s,
            ncols=0,
            prefix=self._description,
            unit=" " + self._unit,
            postfix=self._postfix or None,
            initial=self._initial,
        )
        print(text, file=sys.stderr, flush=True)


def progress(
    work: Iterable[Item] | int,
    description: str,
    unit: str = "step",
    enabled: bool = True,
    *,
    initial: int = 0,
    leave: bool = True,
) -> Progress[Item]:
    """The one bar of the project, over an iterable or over a number of units that `update` counts.

    description: what is being done, such as "ppo"; unit: singular, such as "iteration".
    initial:     units that an earlier, interrupted run did; they count towards the total, not towards the rate.
    leave:       False clears the bar (or writes no last line) when it is done, for bars inside bars.
    """
    if isinstance(work, int):
        return Progress(None, work, description, unit, enabled=enabled, initial=initial, leave=leave)
    total = len(work) if isinstance(work, Sized) else None
    return Progress(work, total, description, unit, enabled=enabled, initial=initial, leave=leave)

"""Where numbers go while a stage runs: metrics.jsonl always, wandb and TensorBoard when asked, bars on stderr.

Metric names are `area/quantity`. metrics.jsonl holds one JSON object a line, `{"step": 3, "train/loss": 1.2}`; a number
that is not finite is written as null, so every line is standard JSON. In a run of several processes only rank 0 writes.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from types import TracebackType
from typing import Any, Generic, Self, TextIO, TypeVar

from rlhf.artifacts import write_text_atomic
from rlhf.config import TrackerConfig
from rlhf.distributed import is_main_process

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"

Item = TypeVar("Item")


def json_value(value: Any) -> Any:
    """`value` as standard JSON holds it: numbers of any library become plain, non-finite ones None, keys strings."""
    if isinstance(value, bool | str | int) or value is None:
        return value
    if isinstance(value, Mapping):
        return {str(key): json_value(item) for key, item in value.items()}
    if hasattr(value, "tolist"):  # torch and numpy, numbers and arrays
        return json_value(value.tolist())
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if isinstance(value, Iterable):
        return [json_value(item) for item in value]
    return str(value)


def read_jsonl(path: Path) -> list[dict[str, Any]]:
    """Every whole line of a metrics.jsonl or samples.jsonl; [] when there is no file.

    The last line is left out when it is torn, as a killed process leaves it.
    """
    if not path.exists():
        return []
    *lines, rest = path.read_text(encoding="utf-8").split("\n")
    rows = [json.loads(line) for line in lines if line.strip()]
    return rows + ([json.loads(rest)] if _is_json(rest) else [])


def _is_json(text: str) -> bool:
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


def json_line(row: Mapping[str, Any]) -> str:
    """`row` as one line of standard JSON that UTF-8 can hold.

    A lone surrogate, which UTF-8 cannot hold, becomes \\udXXX: the escape JSON itself would use.
    """
    text = json.dumps(json_value(row), ensure_ascii=False, allow_nan=False)
    return text.encode("utf-8", "backslashreplace").decode("utf-8") + "\n"


class _JsonLines:
    """A file of JSON lines, each on disk when `append` returns."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._stream: TextIO | None = None

    def append(self, rows: Iterable[Mapping[str, Any]]) -> None:
        if self._stream is None:
            self._drop_torn_line()
            self._stream = self.path.open("a", encoding="utf-8")
        self._stream.write("".join(json_line(row) for row in rows))
        self._stream.flush()

    def rewind(self, step: int, lines: int | None) -> None:
        self.close()
        if self.path.exists():
            kept = [row for row in read_jsonl(self.path) if row["step"] <= step][:lines]
            write_text_atomic(self.path, "".join(json_line(row) for row in kept))

    @property
    def lines(self) -> int:
        return len(read_jsonl(self.path))

    def close(self) -> None:
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _drop_torn_line(self) -> None:
        if not self.path.exists():
            return
        data = self.path.read_bytes()
        if data and not data.endswith(b"\n"):
            os.truncate(self.path, data.rfind(b"\n") + 1)


class Tracker:
    """The numbers of one stage, written to its folder and to whatever services the config names.

    folder:          the stage's folder; made when it is missing. wandb/ and tensorboard/ appear in it when asked.
    resolved_config: plain nested dict, shown by wandb beside the curves.

    Raises AssertionError for a metric whose name is not `area/quantity`.
    """

    def __init__(
        self, folder: Path, config: TrackerConfig, stage: str, run_name: str, resolved_config: Mapping[str, Any]
    ) -> None:
        self.folder = folder
        self.config = config
        self.stage = stage
        self._main = is_main_process()
        self._metrics = _JsonLines(folder / METRICS_FILE)
        self._samples = _JsonLines(folder / SAMPLES_FILE)
        self._tensorboard: Any = None
        self._purge_step: int | None = None
        self._wandb: Any = None
        if self._main:
            folder.mkdir(parents=True, exist_ok=True)
            if config.wandb:
                self._wandb = _start_wandb(folder, config, stage, run_name, resolved_config)

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one line to metrics.jsonl, and sends the same numbers to wandb and TensorBoard."""
        misnamed = [name for name in metrics if "/" not in name]
        assert not misnamed, f"metric names are area/quantity, not {misnamed}"
        if not self._main:
            return
        row = json_value(metrics)
        self._metrics.append([{"step": step, **row}])
        finite = {name: value for name, value in row.items() if value is not None}
        if self._wandb is not None:
            self._wandb.log({"step": step, **finite})
        if self.config.tensorboard:
            writer = self._tensorboard_writer()
            for name, value in finite.items():
                writer.add_scalar(name, value, global_step=step)
            writer.flush()

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None:
        """Appends rows (prompt, response, score, ...) to samples.jsonl; wandb shows the same as a table."""
        if not self._main or not rows:
            return
        plain = [json_value(row) for row in rows]
        self._samples.append({"step": step, **row} for row in plain)
        if self._wandb is not None:
            import wandb

            columns = list(dict.fromkeys(name for row in plain for name in row))
            table = wandb.Table(columns=columns, data=[[row.get(name) for name in columns] for row in plain])
            self._wandb.log({"step": step, "samples/responses": table})

    def position(self) -> dict[str, int]:
        """Lines of metrics.jsonl and of samples.jsonl, for a checkpoint to know what was logged before it."""
        return {"metrics": self._metrics.lines, "samples": self._samples.lines}

    def rewind(self, step: int, position: Mapping[str, int] | None = None) -> None:
        """Forgets what was logged after `step`, so that a resumed stage writes each step once; -1 forgets everything.

        position: what `position` gave then, where more may have been logged of `step` itself since.
        wandb cannot forget: a resumed run shows the later value of a step that ran twice.
        """
        if not self._main:
            return
        lines = position or {}
        self._metrics.rewind(step, lines.get("metrics"))
        self._samples.rewind(step, lines.get("samples"))
        self._close_tensorboard()
        self._purge_step = step + 1  # TensorBoard hides events from here on when the next writer opens

    def close(self) -> None:
        self._metrics.close()
        self._samples.close()
        self._close_tensorboard()
        if self._wandb is not None:
            import wandb

            self._wandb.finish()
            wandb.teardown()  # an offline finish() returns before wandb's own process has written the file; this waits
            self._wandb = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def _tensorboard_writer(self) -> Any:
        if self._tensorboard is None:
            from torch.utils.tensorboard import SummaryWriter

            self._tensorboard = SummaryWriter(str(self.folder / "tensorboard"), purge_step=self._purge_step)
        return self._tensorboard

    def _close_tensorboard(self) -> None:
        if self._tensorboard is not None:
            self._tensorboard.close()
            self._tensorboard = None


def _start_wandb(
    folder: Path, config: TrackerConfig, stage: str, run_name: str, resolved_config: Mapping[str, Any]
) -> Any:
    import wandb

    id_path = folder / "wandb_id.txt"  # a resumed stage continues its own wandb run
    resuming = id_path.exists()
    if not resuming:
        write_text_atomic(id_path, uuid.uuid4().hex[:12])
    run = wandb.init(
        project=config.wandb_project,
        group=run_name,
        name=f"{run_name}/{stage}",
        job_type=stage,
        id=id_path.read_text().strip(),
        resume="allow" if resuming and config.wandb_mode == "online" else None,
        mode="offline" if config.wandb_mode == "offline" else "online",
        dir=str(folder),
        config=json_value(resolved_config),
        settings=wandb.Settings(console="off", silent=True),
    )
    # Our step, not wandb's own counter: it may not go back, and a resumed stage's does.
    run.define_metric("step", hidden=True)
    run.define_metric("*", step_metric="step")
    return run


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

"""Metrics and samples of a run: jsonl files, W&B, TensorBoard."""

from __future__ import annotations

import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from rlhf.config import TrackerConfig
from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.files import write_text_atomic
from rlhf.runtime.jsonl import JsonLines, json_value

METRICS_FILE = "metrics.jsonl"
SAMPLES_FILE = "samples.jsonl"


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
        self._metrics = JsonLines(folder / METRICS_FILE)
        self._samples = JsonLines(folder / SAMPLES_FILE)
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

"""A sweep's two ends: what is checked before its first job, and the table and report after its last."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.chain import runner
from rlhf.chain.place import Place, run_folder
from rlhf.chain.stages import STAGES, WITHOUT_A_RUN
from rlhf.cli.compose import Job
from rlhf.config import Config, StageName
from rlhf.errors import UserError
from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.files import write_json_atomic
from rlhf.runtime.folder import StageFolder
from rlhf.runtime.printable import printable

# Columns of the table: what is shown, and the names it may have in a stage's metrics, best first.
_COLUMNS = {
    "kl": ("eval/kl", "objective/kl"),
    "score": ("eval/score", "objective/score"),
    "gold": ("eval/gold", "objective/gold"),
    "loss": ("eval/loss", "train/loss"),
    "accuracy": ("eval/accuracy",),
}


@dataclass(frozen=True)
class Outcome:
    """How one job ended."""

    job: str | None
    status: int  # as an exit status: 0 done
    message: str  # one line; "" when it is done


def check(jobs: Sequence[Job]) -> None:
    """Refuses what can be refused before the first job starts."""
    for stage in (*WITHOUT_A_RUN, StageName.report):
        if any(job.config.stage == stage for job in jobs):
            raise UserError(f"stage={stage.value} is no sweep's job; run it by itself, without commas and -m.")
    one_stage = len({job.config.stage for job in jobs}) == 1  # else a job may make what a later one starts from
    for job in jobs:
        runner.check(job.config, job.swept, parents=one_stage)


def start(jobs: Sequence[Job]) -> float:
    """Forgets how earlier sweeps' jobs ended; returns the time, to tell this sweep's outcomes from others'."""
    for job in jobs if is_main_process() else ():
        _outcome_path(job.config, job.name).unlink(missing_ok=True)
    return time.time()


def record(config: Config, job: str | None, status: int, message: str) -> None:
    """Leaves word of how a job ended where `finish` finds it, whatever process or machine the job ran on."""
    if not is_main_process():
        return
    word = {"job": job, "stage": config.stage.value, "status": status, "message": message}
    try:
        write_json_atomic(_outcome_path(config, job), word)
    except UserError as error:
        print(f"rlhf: {printable(str(error))}", flush=True)


def finish(jobs: Sequence[Job], started: float) -> int:
    """Prints what the jobs got, reports on their policies, and returns the sweep's exit status."""
    if not is_main_process():
        return 0
    outcomes = [_outcome(job, started) for job in jobs]
    done = [job for job, outcome in zip(jobs, outcomes, strict=True) if outcome.status == 0]
    failed = [outcome for outcome in outcomes if outcome.status != 0]
    _print_table(done)
    status = 1 if failed else 0
    if failed:
        print(f"\n{len(failed)} of {len(jobs)} jobs failed:")
        for outcome in failed:
            print(printable(f"  {outcome.job}: {outcome.message}"))
    policies = [job for job in done if _folder(job, StageName.ppo).complete and job.name is not None]
    if policies and policies[0].config.stage in (StageName.all, StageName.ppo):
        status = max(status, _report(policies))
    if jobs:
        print(f"\nEvery job's folder is in {run_folder(jobs[0].config) / 'sweep'}/")
    return status


def _outcome_path(config: Config, job: str | None) -> Path:
    return run_folder(config) / "sweep" / (job or "") / f"{config.stage.value}.outcome.json"


def _outcome(job: Job, started: float) -> Outcome:
    path = _outcome_path(job.config, job.name)
    name = _label(job)
    if not path.exists() or path.stat().st_mtime < started - 1:
        return Outcome(name, 1, "it did not run to its end")
    word = json.loads(path.read_text(encoding="utf-8"))
    return Outcome(name, word["status"], word["message"])


def _label(job: Job) -> str:
    return job.name or f"stage={job.config.stage.value}"


def _folder(job: Job, stage: StageName) -> StageFolder:
    return Place(run_folder(job.config), job.swept).folder(stage)


def _print_table(jobs: Sequence[Job]) -> None:
    """One line a job with the metrics of the stage the sweep is about."""
    rows = []
    for job in jobs:
        stage = StageName.ppo if job.config.stage == StageName.all else job.config.stage
        metrics = (_folder(job, stage).manifest or {}).get("metrics", {})
        rows.append((_label(job), {name: _first(metrics, keys) for name, keys in _COLUMNS.items()}))
    columns = [name for name in _COLUMNS if any(values[name] is not None for _, values in rows)]
    if not rows or not columns:
        return
    width = max(len(name) for name, _ in rows)
    print(f"\n{'job':<{width}}" + "".join(f"{name:>10}" for name in columns))
    for name, values in rows:
        print(f"{name:<{width}}" + "".join(f"{_number(values[column]):>10}" for column in columns))


def _first(metrics: Mapping[str, Any], names: Sequence[str]) -> float | None:
    return next((metrics[name] for name in names if metrics.get(name) is not None), None)


def _number(value: float | None) -> str:
    return "-" if value is None or not math.isfinite(value) else f"{value:.3f}"


def _report(jobs: Sequence[Job]) -> int:
    """Gathers all that the run's sweeps trained so far into one report; returns an exit status."""
    from rlhf.cli.job import run_guarded

    config = dataclasses.replace(jobs[0].config, stage=StageName.report)
    place = Place(run_folder(config))
    status, _ = run_guarded(lambda: runner.run_stage(config, STAGES[StageName.report], place))
    return status

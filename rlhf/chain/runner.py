"""Which stages run, in which order, from which parents: skips what is done, resumes what stopped, refuses what differs.

A stage is a module `stages/<name>.py` with `run(context) -> metrics` and a declaration in `rlhf.chain.stages`.
Everything round it, folders, parents, manifests, seeds and logs, is here, once for all stages. Nothing here imports
torch before a stage really runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import os
import shutil
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.chain import lineage, source
from rlhf.chain.agreement import check_agreement
from rlhf.chain.lineage import Inputs
from rlhf.chain.lock import locked
from rlhf.chain.log import duration, follow, headline, log, logging_to
from rlhf.chain.parents import Search, named_parents
from rlhf.chain.place import Place, reaching, run_folder
from rlhf.chain.stage import Stage
from rlhf.chain.stages import READ, STAGES
from rlhf.chain.surroundings import code_version, hardware, package_versions
from rlhf.config import CHAIN, Config, DataSourceName, StageName
from rlhf.config.keys import flatten
from rlhf.errors import UserError
from rlhf.runtime import distributed
from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.files import disk_full_error, is_disk_full, refused_by_disk, write_text_atomic
from rlhf.runtime.folder import StageFolder, describe_model

if TYPE_CHECKING:
    from rlhf.data.records import DataSource


def run(config: Config, swept: tuple[str, ...] = ()) -> None:
    """Runs `config.stage`, or the whole chain. Raises UserError for a mistake; other errors carry where the log is."""
    stages = stages_of(config, swept)
    for stage in stages:
        stage.needs(config)
    distributed.join(config.launch.device, alone=config.zero.stage > 0)
    place = Place(run_folder(config), swept)
    if len(stages) > 1 and not swept and is_main_process():
        _say_what(config, stages, place)
    for stage in stages:
        run_stage(config, stage, place)
    if len(stages) > 1 and not swept and is_main_process():
        _say_where(stages, place)


def stages_of(config: Config, swept: Sequence[str] = ()) -> tuple[Stage, ...]:
    """What `config.stage` stands for, in order. Jobs that train policies leave comparing them to the sweep."""
    if config.stage != StageName.all:
        return (STAGES[config.stage],)
    chain = [STAGES[name] for name in CHAIN]
    trained = [stage for stage in chain if not stage.derived]
    return tuple(trained if reaching(swept, trained[-1].name) else chain)


def check(config: Config, swept: tuple[str, ...] = (), *, parents: bool = True) -> None:
    """Refuses what can be before anything loads: folders of another config and, unless told not to, missing parents."""
    place = Place(run_folder(config), swept)
    stages = stages_of(config, swept)
    for stage in stages:
        stage.needs(config)
    if parents:
        find_parents(config, stages[0], place)
    for stage in stages:
        named_parents(config, stage.named)
        folder = place.folder(stage.name)
        manifest = folder.manifest
        if manifest is None or stage.derived or not lineage.holds_work(folder, stage):
            continue
        own = _own_config(config, stage)
        changes = lineage.differences(manifest, stage, Inputs(lineage.deciding_config(own, stage)))
        if changes:
            raise lineage.other_config(folder, changes)


def find_parents(config: Config, stage: Stage, place: Place) -> dict[str, Path]:
    """The models a stage starts from, by role. Raises UserError naming the command that makes a missing one."""
    named = named_parents(config, stage.named)
    return stage.parents(Search(config, place.run, lambda name: place.candidates(name, config), named))


def run_stage(config: Config, stage: Stage, place: Place) -> None:
    """One stage in its folder: skipped, resumed, refused or run."""
    run_in_folder(config, stage, place.folder(stage.name), find_parents(config, stage, place), wait=bool(place.swept))


def _own_config(config: Config, stage: Stage) -> Config:
    """The config as the stage reads it and its manifest keeps it: with its own name and seed."""
    return dataclasses.replace(config, stage=stage.name, seed=stage.seed(config))


def run_in_folder(
    config: Config, stage: Stage, folder: StageFolder, parents: dict[str, Path], *, wait: bool = False
) -> None:
    """Runs `stage` from `parents` in `folder`, unless it finished there from the same inputs.

    wait: for a process that works on it now; else that is a UserError.
    """
    config = _own_config(config, stage)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with locked(folder, wait=wait), logging_to(folder):
            if is_main_process():
                folder.tidy()
            _run_locked(Attempt(config, stage, folder, parents))
    except OSError as error:
        refused = refused_by_disk(error, folder.path)
        if refused is not None:
            raise refused from error
        raise
    finally:
        if is_main_process():
            for path in (folder.path, folder.path.parent):
                with contextlib.suppress(OSError):  # goes only when nothing was written into it
                    path.rmdir()


@dataclass(frozen=True)
class Attempt:
    """One stage that is to be finished in one folder."""

    config: Config  # with the stage's own name and seed
    stage: Stage
    folder: StageFolder
    parents: dict[str, Path]

    @property
    def name(self) -> str:
        return self.stage.name.value


def _run_locked(attempt: Attempt) -> None:
    config, folder = attempt.config, attempt.folder
    with tempfile.TemporaryDirectory() as aside:
        # A finished stage that is skipped keeps its own list, and ranks read the same rows: hence aside.
        bad_rows_path = Path(aside) / "bad_rows.jsonl"
        data = source.load_source(
            attempt.stage.data(config), config.seed, bad_rows_path, show_progress=config.tracker.progress
        )

        def decide() -> tuple[str, Inputs]:
            inputs = lineage.inputs_of(config, attempt.stage, attempt.parents, data)
            return _decide(attempt, inputs), inputs

        decision, inputs = distributed.from_main(decide)
        if decision == "skip":
            log.info("%s: finished already (%s), skipped", attempt.name, folder.path)
            return
        if bad_rows_path.exists() and is_main_process():
            shutil.copyfile(bad_rows_path, folder.path / bad_rows_path.name)
    _run_now(attempt, data, inputs, resume=decision == "resume")
    distributed.barrier()  # the next stage reads this one's manifest on every rank


def _decide(attempt: Attempt, inputs: Inputs) -> str:
    """ "run", "skip" or "resume"; UserError when the folder holds work from other inputs."""
    stage, folder = attempt.stage, attempt.folder
    manifest = folder.manifest
    if manifest is None:
        return "run"
    changes = lineage.differences(manifest, stage, inputs)
    if not changes:
        if manifest["status"] != "complete":
            return "resume"
        if stage.name in attempt.config.run.again:
            log.info("%s: made again, as run.again asks", attempt.name)
            return "resume"
        problem = folder.model_problem()
        if problem is not None:
            raise lineage.changed_model(folder, stage, problem)
        return "skip"
    if not stage.derived and lineage.holds_work(folder, stage):
        raise lineage.other_config(folder, changes)
    if not stage.gathers:
        _move_aside(folder)
    return "run"


def _move_aside(folder: StageFolder) -> None:
    number = 1
    while (old := folder.path.with_name(f"{folder.path.name}-{number}")).exists():
        number += 1
    log.info("%s: made from other inputs; the old folder is now %s", folder.path, old)
    os.rename(folder.path, old)
    folder.path.mkdir()
    follow(folder)


# Running


def _run_now(attempt: Attempt, data: DataSource, inputs: Inputs, *, resume: bool) -> None:
    config, stage, folder = attempt.config, attempt.stage, attempt.folder
    started = time.monotonic()
    before = (folder.manifest or {}).get("wall_s", 0.0) if resume else 0.0
    resolved = _nested(flatten(config))
    record = folder.write_manifest if is_main_process() else _record_nothing
    if is_main_process():
        _write_config(folder, resolved)
    record(**_begun(attempt, inputs))
    log.info("%s: %s in %s", attempt.name, "resumes" if resume else "starts", folder.path)
    try:
        from rlhf.training.torch_settings import prepare_torch, seed_everything

        prepare_torch(config)
        agreement = check_agreement(config, stage, attempt.parents)
        seed_everything(config.seed)
        record(**agreement, hardware=hardware())
        metrics = _call_outline(attempt, data, resolved, resume=resume)
        wall_s = before + time.monotonic() - started
        updates = {"model": describe_model(folder.model_dir)} if is_main_process() and folder.model_dir.is_dir() else {}
        record(status="complete", metrics=dict(metrics), finished=_now(), wall_s=round(wall_s, 2), **updates)
    except BaseException as error:
        if is_main_process():
            _note_failure(folder, error, before + time.monotonic() - started)
        if isinstance(error, Exception) and not isinstance(error, UserError):
            if is_disk_full(error, folder.path):
                raise disk_full_error(folder.path) from error
            error.add_note(f"The log is {folder.log_path}; the same command resumes this stage.")
        raise
    log.info("%s: done in %s%s", attempt.name, duration(wall_s), headline(stage.headline, metrics))


def _begun(attempt: Attempt, inputs: Inputs) -> dict[str, Any]:
    """What the manifest says of a stage from its first moment on."""
    assert inputs.parents is not None, "they are known by now"
    hashes, read = inputs.parents, inputs.read or {}
    return {
        "stage": attempt.name,
        "status": "running",
        "config": inputs.config,
        "parents": {role: {"path": _lasting(path), "hash": hashes[role]} for role, path in attempt.parents.items()},
        **{name: read.get(name) for name in READ},
        "seed": attempt.config.seed,
        "code": code_version(),
        "packages": package_versions(),
        "started": _now(),
        "finished": None,
        "error": None,
    }


def _record_nothing(**_: Any) -> None:
    """In place of `StageFolder.write_manifest` on ranks but the first."""


def _call_outline(attempt: Attempt, data: DataSource, resolved: dict[str, Any], *, resume: bool) -> Mapping[str, float]:
    import datasets

    from rlhf.training.context import StageContext
    from rlhf.training.tracking import Tracker

    datasets.disable_progress_bars()  # but for the one of data.encoding
    config, folder = attempt.config, attempt.folder
    tracker = Tracker(folder.path, config.tracker, attempt.name, config.run.name, resolved)
    try:
        outline: Callable[[StageContext], Mapping[str, float]] = importlib.import_module(f"stages.{attempt.name}").run
        return outline(StageContext(config, folder, dict(attempt.parents), tracker, data, resume))
    finally:
        tracker.close()


def _note_failure(folder: StageFolder, error: BaseException, wall_s: float) -> None:
    if not isinstance(error, UserError | KeyboardInterrupt):
        log.debug("%s", traceback.format_exc())
    what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    log.debug("failed: %s", what)
    with contextlib.suppress(OSError, UserError):  # the disk may be what failed
        folder.write_manifest(status="failed", error=what, finished=_now(), wall_s=round(wall_s, 2))


def _lasting(path: Path) -> str:
    """A folder's absolute path, which means the same from everywhere; a hub id as it is."""
    return str(path.absolute() if path.is_dir() else path)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *nodes, leaf = name.split(".")
        here = tree
        for node in nodes:
            here = here.setdefault(node, {})
        here[leaf] = value
    return tree


def _write_config(folder: StageFolder, resolved: Mapping[str, Any]) -> None:
    import yaml

    write_text_atomic(folder.config_path, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))


def _say_what(config: Config, stages: Sequence[Stage], place: Place) -> None:
    """Before a chain begins: what will happen, where it goes, and that it may be stopped."""
    names = ", ".join(stage.name.value for stage in stages)
    on_sandbox = config.data.source == DataSourceName.sandbox and config.model.path.startswith("builtin:")
    about = " on the built-in sandbox, some three to thirteen minutes on two processor cores" if on_sandbox else ""
    print(
        f"The whole chain{about}: {names}.\nIt goes to {place.run}/. Ctrl-C is safe: the same command goes on.\n",
        flush=True,
    )


def _say_where(stages: Sequence[Stage], place: Place) -> None:
    print(f"\nEverything is in {place.run}/:")
    for stage in stages:
        what, name = stage.makes
        path = place.folder(stage.name).path / name
        if path.exists():
            print(f"  {what:<14}{path}")

"""Where a stage lies: in its run, or in the sweep when something that is swept reaches it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from rlhf.chain.jobs import job_name
from rlhf.chain.stages import reaches
from rlhf.config import Config, StageName
from rlhf.runtime.folder import StageFolder


def run_folder(config: Config) -> Path:
    return Path(config.run.root) / config.run.name


def reaching(swept: Sequence[str], stage: StageName) -> tuple[str, ...]:
    """The settings among `swept` that change what `stage` is given."""
    return tuple(setting for setting in swept if reaches(setting.partition("=")[0], stage))


@dataclass(frozen=True)
class Place:
    """A run's folder, or one job's part of it."""

    run: Path
    swept: tuple[str, ...] = ()  # settings that differ between the jobs of a sweep; none: a run by itself

    def folder(self, stage: StageName) -> StageFolder:
        """Named by what of the sweep reaches the stage: jobs that differ elsewhere share it."""
        job = job_name(reaching(self.swept, stage))
        return StageFolder(self.run / stage.value if job is None else self.run / "sweep" / job / stage.value)

    def candidates(self, stage: StageName, config: Config) -> list[StageFolder]:
        """Where to look for a finished stage, nearest first."""
        folders = [self.folder(stage), StageFolder(self.run / stage.value)]
        if config.run.parents is not None:
            folders.append(StageFolder(Path(config.run.parents) / stage.value))
        return folders

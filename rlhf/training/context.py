"""What the runner hands to a stage."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from rlhf.config import Config
from rlhf.data.records import DataSource
from rlhf.runtime.folder import StageFolder
from rlhf.training.tracking import Tracker


@dataclass(frozen=True)
class StageContext:
    """Everything a stage is given."""

    config: Config
    folder: StageFolder
    parents: dict[str, Path]  # base, policy, reward_model, reward_models/<name>, value_model; compare: sft, ppo, ...
    tracker: Tracker
    data: DataSource
    resume: bool  # an earlier attempt with the same inputs did not finish; go on from its latest checkpoint, if any

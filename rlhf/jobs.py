"""What a sweep's jobs are called, and which of the swept settings reach a stage, so that siblings share the others."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence

from rlhf.config import CHAIN, StageName

ORDER = (StageName.pretrain, *CHAIN)


def swept_settings(words: Sequence[str]) -> tuple[str, ...]:
    """The swept overrides as plain settings, ("ppo.kl.coef=0.02", "seed=1"), without the choice of a stage."""
    return tuple(word.lstrip("+~").replace("'", "").replace('"', "") for word in words if not _is_stage(word))


def job_name(swept: Sequence[str]) -> str | None:
    """A folder's name for one choice of swept overrides; None when they choose nothing but stages.

    >>> job_name(["ppo.kl.coef=0.02", "seed=1", "stage=ppo"])
    'ppo.kl.coef=0.02,seed=1'
    """
    words = swept_settings(swept)
    if not words:
        return None
    name = re.sub(r"[\s/\\]+", "_", ",".join(words))
    if len(name.encode()) <= 150:
        return name
    return f"{name[:120]}-{hashlib.sha256(name.encode()).hexdigest()[:12]}"


def _is_stage(word: str) -> bool:
    return word.partition("=")[0] == "stage"


def reaching(swept: Sequence[str], stage: StageName) -> tuple[str, ...]:
    """The settings among `swept` that change what `stage` is given.

    A stage's own keys reach it and all later stages, judge.* the comparison alone, run.*, tracker.*, launch.*, label.*
    and report.* nothing; any other key (seed, model, data, rollout, ...) reaches every stage.
    """
    return tuple(setting for setting in swept if _reaches(setting.partition("=")[0], stage))


def _reaches(key: str, stage: StageName) -> bool:
    if stage == StageName.self_instruct:  # apart from the chain
        return key.startswith(("self_instruct.", "model.", "seed"))
    node = key.partition(".")[0]
    if node in ("run", "tracker", "launch", "stage", "label", "report"):
        return False
    first = {"judge": StageName.compare, **{s.value: s for s in ORDER}}
    return node not in first or ORDER.index(first[node]) <= ORDER.index(stage)

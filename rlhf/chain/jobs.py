"""What a sweep's jobs are called."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence


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

"""Which files of a folder are for training and which for evaluation, by their names."""

from __future__ import annotations

import re

_EVALUATION_NAMES = ("test", "validation", "valid", "val", "eval", "evaluation", "dev", "heldout", "holdout")
_TRAINING_NAMES = ("train", "training")


def splits_of(names: list[str]) -> dict[str, bool]:
    """Which files hold evaluation rows, where a folder has files for training and for evaluation by their names.

    names: paths below the folder: what lies above it says nothing of its files. The file's own name decides, else the
    folder that is nearest to it.
    """

    def told(name: str) -> bool | None:
        for part in reversed(name.lower().split("/")):
            words = re.split(r"[-_. ]", part)
            if any(word in words for word in _EVALUATION_NAMES):
                return True
            if any(word in words for word in _TRAINING_NAMES):
                return False
        return None

    found = {name: told(name) for name in names}
    return (
        {name: bool(evaluation) for name, evaluation in found.items()} if {True, False} <= set(found.values()) else {}
    )


def in_words(names: list[str]) -> str | None:
    """What `splits_of` decided, as the end of a sentence; None where names tell nothing."""
    splits = splits_of(names)
    if not splits:
        return None
    held_out = [name for name, evaluation in splits.items() if evaluation]
    trained = [name for name, evaluation in splits.items() if not evaluation]
    return f"by their names, {_listed(trained)} for training and {_listed(held_out)} for evaluation"


def _listed(names: list[str]) -> str:
    return ", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")

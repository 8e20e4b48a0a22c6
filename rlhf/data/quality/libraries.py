"""Libraries that single passes need, imported when they run."""

from __future__ import annotations

import importlib
from types import ModuleType

from rlhf.errors import UserError


def library(name: str, setting: str) -> ModuleType:
    """The module. Raises UserError where it is not installed; `setting` is the key under data.quality that needs it."""
    try:
        return importlib.import_module(name)
    except ImportError as error:
        package = name.partition(".")[0]
        raise UserError(
            f"data.quality.{setting} needs {package}, which cannot be imported ({error}); "
            f"run `pip install {package}`, or leave data.quality.{setting} unset."
        ) from error

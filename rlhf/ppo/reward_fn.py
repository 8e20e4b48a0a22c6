"""A Python function as a reward: found by its dotted path, checked when it is found and each time it answers."""

from __future__ import annotations

import hashlib
import importlib
import inspect
import math
import numbers
import operator
import os
import sys
import traceback
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from rlhf.data.records import Prompt
from rlhf.errors import UserError


@dataclass(frozen=True)
class RewardFunction:
    """What `ppo.reward_fn` names. Nothing here loads torch, so that a wrong name is refused at once."""

    path: str  # as typed: "my.module:score"
    function: Callable[..., Any]
    source_hash: str  # sha256 of the files that define it; those that they import are not in it

    def __call__(self, prompts: Sequence[str], responses: Sequence[str], records: Sequence[Prompt]) -> list[float]:
        """One finite number a response. Raises UserError naming function and row where it gives anything else.

        prompts: as the policy reads them, laid out by its template; records: the same as `rlhf.data.records.Prompt`,
        with id, messages, task and details. responses: the texts, without special tokens.
        What the function itself raises goes on as it is, with its name added: the traceback is the author's to read.
        """
        try:
            given = self.function(list(prompts), list(responses), list(records))
        except Exception as error:
            error.add_note(f"ppo.reward_fn={self.path} raised this for {len(responses)} responses.")
            raise
        values = given.tolist() if hasattr(given, "tolist") else given  # of NumPy and torch
        if not isinstance(values, Sequence) or isinstance(values, str):
            raise UserError(f"ppo.reward_fn={self.path} returned {type(given).__name__}; it is to return a list.")
        if len(values) != len(responses):
            raise UserError(
                f"ppo.reward_fn={self.path} returned {len(values)} scores for {len(responses)} responses; it is to "
                "return one for each, in their order."
            )
        for row, (value, record) in enumerate(zip(values, records, strict=True)):
            if not isinstance(value, numbers.Real) or not math.isfinite(value):
                raise UserError(
                    f"ppo.reward_fn={self.path} returned {value!r} for row {row} (prompt {record.id}); every score is "
                    "to be a finite number."
                )
        return [float(value) for value in values]


def load_reward_fn(path: str) -> RewardFunction:
    """The function that "my.module:score" names; the current folder is searched too.

    Raises UserError when there is no such module, it does not import, or what it has under that name cannot be called
    with prompts, responses and records.
    """
    module_name, _, name = path.partition(":")
    module = _import(module_name, path)
    try:
        function = operator.attrgetter(name)(module)
    except AttributeError:
        raise UserError(f"ppo.reward_fn={path}: {module_name} ({_file(module)}) has no {name}.") from None
    if not callable(function):
        raise UserError(f"ppo.reward_fn={path}: {name} is {type(function).__name__}, not a function.")
    try:
        signature = inspect.signature(function)
    except (TypeError, ValueError):  # built-in functions need not tell
        signature = None
    if signature is not None:
        try:
            signature.bind([], [], [])
        except TypeError:
            raise UserError(
                f"ppo.reward_fn={path}: {name}{signature} cannot be called with prompts, responses and records, three "
                "lists of one length."
            ) from None
    return RewardFunction(path, function, _source_hash(module, function))


def _import(name: str, path: str) -> ModuleType:
    if not {"", os.getcwd()} & set(sys.path):
        sys.path.append(os.getcwd())  # as `python -m rlhf` has it, for every other way to start
    importlib.invalidate_caches()
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is not None and f"{name}.".startswith(f"{error.name}."):
            raise UserError(
                f"ppo.reward_fn={path}: there is no module {error.name} in {os.getcwd()} or elsewhere on Python's path."
            ) from None
        raise _broken(path, name, error) from error
    except Exception as error:
        raise _broken(path, name, error) from error


def _broken(path: str, name: str, error: Exception) -> UserError:
    last = traceback.extract_tb(error.__traceback__)[-1]
    where = (error.filename, error.lineno) if isinstance(error, SyntaxError) else (last.filename, last.lineno)
    what = f"{type(error).__name__}: {error}".splitlines()[0]
    return UserError(f"ppo.reward_fn={path}: importing {name} failed at {where[0]}:{where[1]} ({what}).")


def _file(module: ModuleType) -> str:
    return getattr(module, "__file__", None) or "built in"


def _source_hash(module: ModuleType, function: Any) -> str:
    """Over the module that is named and the file the function is really written in, where those are files."""
    files = {getattr(module, "__file__", None)}
    unwrapped = inspect.unwrap(function)
    try:
        files.add(inspect.getsourcefile(unwrapped))
    except TypeError:  # an instance with __call__, or a built-in
        files.add(getattr(sys.modules.get(type(unwrapped).__module__), "__file__", None))
    digest = hashlib.sha256()
    for file in sorted(name for name in files if name is not None and Path(name).is_file()):
        digest.update(Path(file).read_bytes())
    return digest.hexdigest()

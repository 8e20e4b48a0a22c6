"""Every key of the config with its type, default and meaning, read from rlhf/config/ itself so that none goes stale."""

from __future__ import annotations

import ast
import dataclasses
import difflib
import functools
import io
import tokenize
import types
import typing
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

from rlhf import config


@dataclass(frozen=True)
class Key:
    """One leaf of the config."""

    name: str  # as typed: "ppo.kl.coef"
    type: Any  # the annotation: float, str | None, StageName, list[float], ...
    default: Any
    meaning: str  # the comment beside the field; "" when there is none

    @property
    def allowed(self) -> str:
        """What it takes, in words."""
        return _allowed(self.type)


def _members(annotation: Any) -> tuple[list[Any], bool]:
    """The members of a union without None, and whether None was one of them."""
    if typing.get_origin(annotation) in (typing.Union, types.UnionType):
        members = typing.get_args(annotation)
        return [m for m in members if m is not type(None)], type(None) in members
    return [annotation], False


def _allowed(annotation: Any) -> str:
    members, optional = _members(annotation)
    words = " or ".join(_allowed_one(member) for member in members)
    return f"{words}, or null" if optional else words


def _allowed_one(annotation: Any) -> str:
    if typing.get_origin(annotation) is list:
        (item,) = typing.get_args(annotation)
        one = "numbers" if item in (int, float) else "words"
        example = (
            "[0.9,0.95]" if item in (int, float) else "[" + ",".join(_choices(item)[:2] or ["first", "second"]) + "]"
        )
        return f"a list of {one} such as {example}"
    if typing.get_origin(annotation) is dict:
        value = typing.get_args(annotation)[1]
        return "a mapping such as {name: 0.5}" if value is float else "a mapping such as {name: path}"
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return "one of " + ", ".join(_choices(annotation))
    names = {bool: "true or false", int: "a whole number", float: "a number", str: "a text"}
    return names[annotation]


def _choices(annotation: Any) -> list[str]:
    return (
        [str(member.value) for member in annotation]
        if isinstance(annotation, type) and issubclass(annotation, Enum)
        else []
    )


@functools.cache
def all_keys() -> dict[str, Key]:
    """Every leaf by its name, in the order of the dataclasses."""
    return {key.name: key for key in _walk(config.Config, config.Config(), "")}


@functools.cache
def all_nodes() -> frozenset[str]:
    """Every inner node: ppo, ppo.kl, ..."""
    return frozenset(name.rsplit(".", count)[0] for name in all_keys() for count in range(1, name.count(".") + 1))


@functools.cache
def mappings() -> frozenset[str]:
    """Every key under which users choose the names themselves: compare.candidates, ..."""
    return frozenset(name for name, key in all_keys().items() if typing.get_origin(key.type) is dict)


def _walk(node: type, value: Any, prefix: str) -> typing.Iterator[Key]:
    hints = typing.get_type_hints(node)
    for field in dataclasses.fields(node):
        name, default = f"{prefix}{field.name}", getattr(value, field.name)
        if dataclasses.is_dataclass(hints[field.name]):
            yield from _walk(hints[field.name], default, f"{name}.")
        else:
            yield Key(name, hints[field.name], default, _comments().get((node.__name__, field.name), ""))


@functools.cache
def _comments() -> dict[tuple[str, str], str]:
    """(class, field) -> the comment beside it, in all of the package's modules."""
    found: dict[tuple[str, str], str] = {}
    for module in Path(config.__file__).parent.glob("*.py"):
        found |= _comments_in(module.read_text(encoding="utf-8"))
    return found


def _comments_in(source: str) -> dict[tuple[str, str], str]:
    by_line = {
        token.start[0]: token.string.lstrip("# ")
        for token in tokenize.generate_tokens(io.StringIO(source).readline)
        if token.type == tokenize.COMMENT
    }
    return {
        (node.name, field.target.id): by_line[line]
        for node in ast.parse(source).body
        if isinstance(node, ast.ClassDef)
        for field in node.body
        if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name)
        for line in range(field.lineno, (field.end_lineno or field.lineno) + 1)  # a long default has it beside a part
        if line in by_line
    }


def show(value: Any) -> str:
    """A value as it is typed on the command line."""
    if isinstance(value, Enum):
        return str(value.value)
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, (list, tuple)):
        return "[" + ",".join(show(item) for item in value) + "]"
    if isinstance(value, dict):
        return "{" + ",".join(f"{key}:{show(item)}" for key, item in value.items()) + "}"
    return str(value)


def did_you_mean(wrong: str, names: typing.Iterable[str]) -> str:
    """ " Did you mean X?" with up to three of `names`, "" when none is near.

    A key whose last part is right and whose place is wrong (ppo.lr for ppo.optim.lr) counts as near.
    """
    names = list(dict.fromkeys(names))
    head, _, last = wrong.rpartition(".")
    misplaced = [name for name in names if name.rpartition(".")[2] == last and name != wrong] if last else []
    misplaced.sort(key=lambda name: not name.startswith(head + "."))
    if any(name.startswith(head + ".") for name in misplaced):
        misplaced = [name for name in misplaced if name.startswith(head + ".")]
    near = misplaced or difflib.get_close_matches(wrong, names, n=3, cutoff=0.6)
    if not near:  # the node is right and the rest is not: compare the last parts alone
        siblings = {name.rpartition(".")[2]: name for name in names if name.rpartition(".")[0] == head}
        near = [siblings[n] for n in difflib.get_close_matches(last, siblings, n=3, cutoff=0.5)]
    return f" Did you mean {' or '.join(near[:3])}?" if near else ""


def flatten(value: Any, prefix: str = "") -> dict[str, Any]:
    """A config object as {"ppo.kl.coef": 0.05, ...} with JSON values."""
    if dataclasses.is_dataclass(value):
        parts = {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    elif isinstance(value, dict) and value:
        parts = value
    else:
        return {prefix: value.value if isinstance(value, Enum) else _plain(value)}
    flat: dict[str, Any] = {}
    for name, part in parts.items():
        flat.update(flatten(part, f"{prefix}.{name}" if prefix else str(name)))
    return flat


def _plain(value: Any) -> Any:
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, (list, tuple)):
        return [_plain(item) for item in value]
    return value

"""Rows of a task put into words by templates, several phrasings a task (FLAN, Wei et al. 2022, arXiv:2109.01652).

A YAML file gives them:

    nli:                          # a task
      phrasings:
        - prompt: "{premise}\\nCan we conclude that \\"{hypothesis}\\"?\\nOPTIONS:\\n- yes\\n- no"
          response: "{label}"
        - prompt: "Does \\"{premise}\\" imply \\"{hypothesis}\\"?"
          response: "{label}"
      values: {label: {0: yes, 1: no}}  # names for coded answers, by column
      hold_out_phrasings: 1       # the last N phrasings are seen in evaluation alone; 0: none
      hold_out: false             # true: all rows of the task are evaluation's
      expand: one                 # one phrasing a row, drawn by the seed; all: a record for each
    task_column: task             # the column that names a row's task; without it the only task, else the file's name
    expand: one                   # for every task that does not say it itself

A `{column}` in a template stands for the row's value: text as it is, without space around it; numbers without an
exponent or a fraction of zero (3, 0.5); true and false; a list as an item a line, each after "- ", which is how FLAN
writes options. `{{` and `}}` are braces. There is no more to it: no attributes, indices or formats.
"""

from __future__ import annotations

import hashlib
import json
import math
import string
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

from rlhf.config.keys import did_you_mean
from rlhf.data import plain_yaml
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Role, Split
from rlhf.errors import UserError

_FILE_KEYS = ("task_column", "expand")
_TASK_KEYS = ("phrasings", "values", "hold_out_phrasings", "hold_out", "expand")
_PHRASING_KEYS = ("prompt", "response")


@dataclass(frozen=True)
class Template:
    """Text with columns in it: literals and columns in turn, a literal first and last."""

    literals: tuple[str, ...]
    columns: tuple[str, ...]

    def write(self, row: Mapping[str, Any], values: Mapping[str, Mapping[str, str]]) -> str:
        """Raises BadRowError, naming the column, for a value that is missing, empty or cannot be written."""
        written = [_written(row, column, values.get(column)) for column in self.columns]
        return "".join(part for pair in zip(self.literals, [*written, ""], strict=True) for part in pair).strip()


@dataclass(frozen=True)
class Phrasing:
    prompt: Template
    response: Template


@dataclass(frozen=True)
class Task:
    phrasings: tuple[Phrasing, ...]
    values: Mapping[str, Mapping[str, str]]  # by column: the name of each code
    hold_out_phrasings: int
    hold_out: bool
    expand: bool

    def indices(self, split: Split) -> range:
        """The phrasings that a split's rows may take."""
        training = len(self.phrasings) - self.hold_out_phrasings
        if split == Split.train:
            return range(training)
        return range(training if self.hold_out_phrasings else 0, len(self.phrasings))


@dataclass(frozen=True)
class Phrasings:
    """What a file of phrasings says."""

    name: str  # the file's, for error messages
    sha256: str  # of its bytes
    tasks: Mapping[str, Task]
    task_column: str | None

    def task_of(self, row: Mapping[str, Any], file: str) -> str:
        """The task a row of `file` belongs to: by the task column, else the only one, else by the file's name.

        Raises BadRowError for a row whose column names none, UserError for a file whose name is none.
        """
        if self.task_column is not None:
            task = _written(row, self.task_column, None)
            if task not in self.tasks:
                raise BadRowError(f"`{self.task_column}` is {task[:40]!r}, none of the tasks {', '.join(self.tasks)}")
            return task
        if len(self.tasks) == 1:
            return next(iter(self.tasks))
        stems = [file.rsplit(".", count)[0] for count in range(file.count(".") + 1)]
        named = next((stem for stem in stems if stem in self.tasks), None)
        if named is None:
            raise UserError(
                f"{file} is named after no task of {self.name} ({', '.join(self.tasks)}); rename it, or give "
                f"{self.name} a task_column."
            )
        return named

    def row_key(self, row: Mapping[str, Any], *, task: str) -> str:
        """What decides by its hash whether a row is held out: its task and the values that its prompts show.

        Rows that ask the same are held out together, whatever else (an id, the answer) they differ in.
        """
        phrasings = self.tasks[task].phrasings
        shown = sorted({column for phrasing in phrasings for column in phrasing.prompt.columns})
        return json.dumps([task, [row.get(column) for column in shown]], ensure_ascii=False, default=str)

    def read(self, row: Mapping[str, Any], *, task: str, number: int, seed: int, held_out: bool) -> list[Demonstration]:
        """A row in words: one demonstration, or with expand=all one for every phrasing that its split may take.

        Which phrasing depends on seed, task and row number alone. A held-out row takes held-out phrasings where there
        are any, a training row never does. `details` says which it was, `split` where it belongs.
        Raises BadRowError for a row that lacks what the phrasing needs.
        """
        chosen = self.tasks[task]
        split = Split.evaluation if held_out or chosen.hold_out else Split.train
        indices: Sequence[int] = chosen.indices(split)
        if not chosen.expand:
            indices = [indices[_draw(seed, task, number) % len(indices)]]
        demonstrations = []
        for index in indices:
            phrasing = chosen.phrasings[index]
            asked = Message(Role.user, phrasing.prompt.write(row, chosen.values))
            prompt = Prompt("", (asked,), task, details={"phrasing": index}, split=split)
            demonstrations.append(Demonstration(prompt, phrasing.response.write(row, chosen.values)))
        return demonstrations


def _draw(seed: int, task: str, number: int) -> int:
    return int.from_bytes(hashlib.sha256(json.dumps([seed, task, number]).encode()).digest()[:8], "big")


# A row's values


def _written(row: Mapping[str, Any], column: str, names: Mapping[str, str] | None) -> str:
    if column not in row:
        raise BadRowError(f"it has no column `{column}`, which its phrasing names")
    value = row[column]
    if not isinstance(value, list | tuple):
        return _one(value, f"`{column}`", names)
    if not value:
        raise BadRowError(f"`{column}` is an empty list")
    return "\n".join(f"- {_one(item, f'`{column}[{index}]`', names)}" for index, item in enumerate(value))


def _one(value: Any, where: str, names: Mapping[str, str] | None) -> str:
    text = _plain(value, where)
    if not text:
        raise BadRowError(f"{where} is empty or whitespace")
    if names is None:
        return text
    if text not in names:
        raise BadRowError(f"{where} is {text[:40]!r}, none of {', '.join(names)}")
    return names[text]


def _plain(value: Any, where: str) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):  # NaN: a table's empty cell among numbers
        return ""
    if isinstance(value, str):
        return value.strip()
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int):
        return str(value)
    if isinstance(value, float) and math.isfinite(value):
        return f"{Decimal(repr(value)):f}".removesuffix(".0")
    raise BadRowError(f"{where} is {str(value)[:40]!r}, neither text, a number nor a list of them")


# The file


BUILTIN = "builtin"  # phrasings.yaml beside this module


def load(path: str) -> Phrasings:
    """The phrasings of a YAML file, or the built-in ones.

    Raises UserError naming the file, the task and what is wrong: YAML that is none, unknown or missing keys, templates
    that are the same or name no column, values for a column that no template names, nothing left to train on.
    """
    path = str(Path(__file__).with_suffix(".yaml")) if path == BUILTIN else path
    name = Path(path).name
    given = plain_yaml.read(path, "data.phrasings")
    task_column = given.get("task_column")
    if task_column is not None and not (isinstance(task_column, str) and task_column):
        raise UserError(f"{name}: task_column is to be the name of a column.")
    expand = _choice(given, "expand", ("one", "all"), "one", name)
    tasks = {
        task: _task(values, f"{name}, task {task}", expand) for task, values in given.items() if task not in _FILE_KEYS
    }
    if not tasks:
        raise UserError(f"{name} has no tasks; give one as `name: {{phrasings: [...]}}`.")
    sha256 = hashlib.sha256(Path(path).expanduser().read_bytes()).hexdigest()
    return Phrasings(name, sha256, tasks, task_column)


def _task(given: Any, where: str, expand: str) -> Task:
    if not isinstance(given, dict):
        raise UserError(
            f"{where} is no mapping; a task holds {', '.join(_TASK_KEYS)}, and beside tasks the file may have "
            f"{' and '.join(_FILE_KEYS)} alone."
        )
    _known(given, _TASK_KEYS, where)
    listed = given.get("phrasings")
    if not isinstance(listed, list) or not listed:
        raise UserError(f"{where} has no list of phrasings; each is {{prompt: ..., response: ...}}.")
    phrasings = tuple(_phrasing(item, f"{where}, phrasing {index}") for index, item in enumerate(listed))
    _refuse_same(phrasings, where)
    hold_out = _choice(given, "hold_out", ("true", "false"), "false", where) == "true"
    return Task(
        phrasings,
        _values(given.get("values", {}), phrasings, where),
        _hold_out_phrasings(given, len(phrasings), hold_out, where),
        hold_out,
        _choice(given, "expand", ("one", "all"), expand, where) == "all",
    )


def _phrasing(given: Any, where: str) -> Phrasing:
    if not isinstance(given, dict):
        raise UserError(f"{where} is no mapping; it is to be {{prompt: ..., response: ...}}.")
    _known(given, _PHRASING_KEYS, where)
    return Phrasing(*(_template(given.get(key), f"{where}: its {key}") for key in _PHRASING_KEYS))


def _template(given: Any, where: str) -> Template:
    """A template from its text, whose only syntax is {column}, {{ and }}."""
    if not isinstance(given, str) or not given.strip():
        raise UserError(f"{where} is missing; write a text with {{column}} in it.")
    try:
        pieces = list(string.Formatter().parse(given.strip()))
    except ValueError as error:
        raise UserError(f"{where} has a brace too many or too few ({error}); write {{{{ or }}}} for a brace.") from None
    literals, columns = [""], []
    for literal, column, spec, conversion in pieces:
        literals[-1] += literal
        if column is None:
            continue
        if not column.strip() or any(mark in column for mark in ".[]") or spec or conversion:
            form = f"{column}{'!' + conversion if conversion else ''}{':' + spec if spec else ''}"
            raise UserError(
                f"{where} holds {{{form}}}; only {{column}} is filled in, and a brace is written {{{{ or }}}}."
            )
        columns.append(column)
        literals.append("")
    if not columns:
        raise UserError(f"{where} names no column of the row, so all rows would have the same; write {{column}}.")
    return Template(tuple(literals), tuple(columns))


def _refuse_same(phrasings: Sequence[Phrasing], where: str) -> None:
    first: dict[Template, int] = {}
    for index, phrasing in enumerate(phrasings):
        if first.setdefault(phrasing.prompt, index) != index:
            both = f"{first[phrasing.prompt]} and {index}"
            raise UserError(f"{where}: phrasings {both} have the same prompt; leave one out.")


def _values(given: Any, phrasings: Sequence[Phrasing], where: str) -> dict[str, dict[str, str]]:
    templates = [template for phrasing in phrasings for template in (phrasing.prompt, phrasing.response)]
    columns = {column for template in templates for column in template.columns}
    if not isinstance(given, dict):
        raise UserError(f"{where}: values is to be {{column: {{code: name}}}}.")
    for column, names in given.items():
        if column not in columns:
            hint = did_you_mean(column, sorted(columns))
            raise UserError(f"{where}: values names the column {column}, which no phrasing does.{hint}")
        if not isinstance(names, dict) or not names:
            raise UserError(f"{where}: values.{column} is to be {{code: name}}, such as {{0: no, 1: yes}}.")
        empty = next((code for code, name in names.items() if not isinstance(name, str) or not name.strip()), None)
        if empty is not None:
            raise UserError(f"{where}: values.{column} has no name for {empty}.")
    return {column: {code: name.strip() for code, name in names.items()} for column, names in given.items()}


def _hold_out_phrasings(given: Mapping[str, Any], count: int, hold_out: bool, where: str) -> int:
    written = given.get("hold_out_phrasings", "0")
    if not isinstance(written, str) or not written.isdecimal() or int(written) >= count:
        raise UserError(
            f"{where}: hold_out_phrasings is {written}; use 0 to {count - 1}, as one of its {count} phrasings at least "
            "is to be trained on."
        )
    if hold_out and int(written):
        raise UserError(
            f"{where}: hold_out keeps the whole task for evaluation, and hold_out_phrasings a part of it; set one."
        )
    return int(written)


def _choice(given: Mapping[str, Any], key: str, allowed: Sequence[str], default: str, where: str) -> str:
    value = given.get(key, default)
    if value not in allowed:
        raise UserError(f"{where}: {key} is {value}; use {' or '.join(allowed)}.")
    return str(value)


def _known(given: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in given:
        if key not in keys:
            raise UserError(f"{where} has no setting {key}; there are {', '.join(keys)}.{did_you_mean(key, keys)}")

"""Candidates that are files: answers that somebody has already, matched to the held-out prompts.

    {"instruction": "...", "input": "...", "output": "...", "generator": "..."}    AlpacaFarm's and AlpacaEval's outputs
    {"prompt": "...", "response": "..."}        or `output` or `completion`; a prompt may be messages, as data=jsonl has
    {"id": "...", "response": "..."}            by the prompt's id in the data
    {"id": "...", "messages": [...], "candidates": {NAME: {"response": "..."}}}    a comparison's own responses.jsonl

Tables with the same columns are read too. FILE@NAME is one of a responses.jsonl's candidates, or one `generator`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import DataConfig, DataSourceName
from rlhf.data.files import Row, RowFiles, Table, shorten
from rlhf.data.readers import fields, jsonl
from rlhf.data.records import BadRowError, Document, Prompt, prompt_of
from rlhf.data.rows import rows_of
from rlhf.data.store import key_of
from rlhf.errors import UserError

_RESPONSES = ("response", "output", "completion")
_PROMPTS = ("prompt", "messages", "conversations", "system")


@dataclass(frozen=True)
class Output:
    """An answer in a file."""

    text: str
    ended: bool  # False: the file says that it was cut


def fingerprints(outputs: Mapping[str, str]) -> dict[str, str]:
    """What each file holds, by candidate: its sha256, and the name chosen in it."""
    found = {}
    for name, chosen in outputs.items():
        path, part = _split(chosen)
        config = DataConfig(source=DataSourceName.jsonl, path=path)
        found[name] = RowFiles(path, f"compare.outputs.{name}", config, Table()).sha256 + (f"@{part}" if part else "")
    return found


def require_files(outputs: Mapping[str, str]) -> None:
    """UserError for one of them that is not there."""
    for name, chosen in outputs.items():
        path, _ = _split(chosen)
        if not Path(path).expanduser().exists():
            raise UserError(f"There is no file {path}; set compare.outputs.{name} to a file of outputs.")


def answered(
    outputs: Mapping[str, str], prompts: Sequence[Prompt]
) -> tuple[list[Prompt], dict[str, dict[str, Output]], dict[str, int]]:
    """The prompts that all files answer, each file's answers by the prompt's id, and how many prompts each file lacks.

    Raises UserError for a row that cannot be used, for two answers to one prompt, and when no prompt is left.
    """
    by_file = {name: _read(name, chosen, prompts) for name, chosen in outputs.items()}
    common = [prompt for prompt in prompts if all(prompt.id in found for found in by_file.values())]
    if not common:
        raise UserError(
            f"None of the {len(prompts)} held-out prompts is answered in all of "
            f"{', '.join(f'compare.outputs.{name}' for name in outputs)}; each by itself answers "
            f"{', '.join(str(len(found)) for found in by_file.values())} of them. Name files of the same prompts."
        )
    return common, by_file, {name: len(prompts) - len(found) for name, found in by_file.items()}


def _split(chosen: str) -> tuple[str, str]:
    """FILE and NAME of FILE@NAME; a file that is called so is one."""
    path, mark, part = chosen.rpartition("@")
    return (path, part) if mark and not Path(chosen).expanduser().exists() else (chosen, "")


def _read(name: str, chosen: str, prompts: Sequence[Prompt]) -> dict[str, Output]:
    path, part = _split(chosen)
    key = f"compare.outputs.{name}"
    by_id = {prompt.id: prompt for prompt in prompts}
    by_text: dict[str, list[Prompt]] = {}
    for prompt in prompts:
        by_text.setdefault(key_of(prompt), []).append(prompt)
    found: dict[str, Output] = {}
    where: dict[str, str] = {}
    first: Row | None = None
    for row in rows_of(path, key):
        if part and "generator" in row.values and row.values["generator"] != part:
            continue
        first = first or row
        try:
            asked = _asked(row.values)
            output = _output(row.values, part, name)
        except BadRowError as error:
            raise UserError(f"{row.where}: {error}; {error.remedy}, or set {key} to another file.") from None
        for prompt in _matching(row.values, asked, by_id, by_text):
            if output is None:
                continue
            if found.setdefault(prompt.id, output) != output:
                raise UserError(
                    f"{row.where}: it answers the prompt of {where[prompt.id]} with another text; leave one answer to "
                    f"a prompt in the file, or choose among its generators with {key}={path}@GENERATOR."
                )
            where.setdefault(prompt.id, row.where)
    if not found:
        raise UserError(_nothing_in_common(key, path, part, first, prompts))
    return found


def _nothing_in_common(key: str, path: str, part: str, first: Row | None, prompts: Sequence[Prompt]) -> str:
    if first is None:
        return f"{path} has no rows{f' of the generator {part}' if part else ''}; set {key} to a file of outputs."
    asked = _asked(first.values)
    theirs = f"`{shorten(asked.messages[-1].content)}`" if asked else f"the id {first.values.get('id')}"
    return (
        f"{key}={path} answers none of the {len(prompts)} held-out prompts: its first row is of {theirs}, the first "
        f"held-out prompt is {prompts[0].id}, `{shorten(prompts[0].messages[-1].content)}`. Name the data that it "
        "answers with data.path; data.evaluation_fraction=1 holds out all of its rows."
    )


def _matching(
    values: Mapping[str, Any], asked: Prompt | None, by_id: Mapping[str, Prompt], by_text: Mapping[str, list[Prompt]]
) -> list[Prompt]:
    """The prompt of that id, unless the row spells another one; else all that read alike."""
    named = by_id.get(str(values.get("id")))
    if named is not None and (asked is None or key_of(asked) == key_of(named)):
        return [named]
    return [] if asked is None else by_text.get(key_of(asked), [])


def _asked(values: Mapping[str, Any]) -> Prompt | None:
    """The prompt that a row spells, as the readers of rlhf.data would; None where it has an id alone."""
    if "instruction" in values:
        given = fields.optional_text(values, "input") or fields.optional_text(values, "context")
        system = fields.optional_text(values, "system")
        return fields.user_prompt(fields.text(values, "instruction"), given, system=system)
    spelled = {key: values[key] for key in _PROMPTS if key in values}
    if spelled:
        [record] = jsonl.read(spelled)
        assert not isinstance(record, Document), "it was given no text of its own"
        return prompt_of(record)
    if "id" not in values:
        raise BadRowError(
            f"its columns are {', '.join(f'`{name}`' for name in values) or 'none'}, and none of them is a prompt",
            "give it `instruction`, `prompt`, `messages` or `id`",
        )
    return None


def _output(values: Mapping[str, Any], part: str, name: str) -> Output | None:
    """The row's answer; None where it is null, which is none."""
    candidates = values.get("candidates")
    if isinstance(candidates, Mapping):
        chosen = part or (name if name in candidates else next(iter(candidates)) if len(candidates) == 1 else "")
        if chosen not in candidates:
            raise BadRowError(
                f"it has answers of {', '.join(candidates)}, and none of {chosen or name}",
                f"choose one with compare.outputs.{name}=FILE@NAME",
            )
        values = candidates[chosen]
    elif part and "generator" not in values:
        raise BadRowError(
            f"it has neither `candidates` nor a `generator`, and @{part} chooses one", f"leave out @{part}"
        )
    key = next((key for key in _RESPONSES if key in values), None)
    if key is None:
        raise BadRowError("it has no answer", f"give it one of {', '.join(f'`{key}`' for key in _RESPONSES)}")
    if values[key] is None:
        return None
    if not isinstance(values[key], str):
        raise BadRowError(f"`{key}` is not text")
    return Output(fields.without_end_token(values[key].strip()), bool(values.get("ended", True)))

"""What is to be judged: prompts with their responses, each different response once, in an order drawn by the seed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rlhf.data.bad_rows import BadRows
from rlhf.data.codec import from_values, to_values
from rlhf.data.files import Row
from rlhf.data.readers import jsonl
from rlhf.data.records import BadRowError, Prompt, Ranking
from rlhf.data.rows import rows_of
from rlhf.errors import UserError

KEY = "label.responses"
_RANKED = {"ranks", "scores"}  # columns beside completions that make a row a ranking of one's own
_SHAPES = (
    "it takes messages with candidates (a comparison's responses.jsonl), prompt or messages with completions or "
    "responses, and rankings"
)


@dataclass(frozen=True)
class Response:
    text: str
    names: tuple[str, ...] = ()  # of the candidates that gave it; () where the file names none

    @property
    def id(self) -> str:
        """What a page calls it by: a hash of the text it shows anyway, so that it tells neither candidate nor place."""
        return _hash(self.text)[:12]


@dataclass(frozen=True)
class Item:
    """A prompt with 2 or more different responses."""

    prompt: Prompt
    responses: tuple[Response, ...]

    @property
    def key(self) -> str:
        """The same for the same texts and names, in any file and order."""
        messages = [[message.role.value, message.content] for message in self.prompt.messages]
        return _hash(json.dumps([messages, sorted([r.text, *r.names] for r in self.responses)]))[:16]

    def to_values(self) -> dict[str, Any]:
        return {
            "prompt": to_values(self.prompt),
            "responses": [{"text": response.text, "names": list(response.names)} for response in self.responses],
        }

    @classmethod
    def from_values(cls, values: Mapping[str, Any]) -> Item:
        responses = tuple(Response(row["text"], tuple(row["names"])) for row in values["responses"])
        return cls(from_values(Prompt, values["prompt"]), responses)


@dataclass(frozen=True)
class Items:
    by_key: dict[str, Item]  # in the order in which everybody is shown them
    alike: int  # prompts left out, since all their responses are the same


def load(path: Path, bad_rows: BadRows, *, prompts: int | None, max_responses: int, seed: int) -> Items:
    """The items of a file; rows of no use go to `bad_rows`. Raises UserError where nothing can be judged."""
    if not path.exists():
        raise UserError(f"There is no file {path}; set {KEY} to one: {_SHAPES}.")
    found: dict[str, Item] = {}
    alike = 0
    for row in rows_of(str(path), KEY):
        try:
            given = _read(row.values)
        except BadRowError as error:
            bad_rows.add(row.where, str(error), error.remedy)
            continue
        for prompt, responses in given:
            item = Item(_named(prompt, row), _drawn(_merged(responses), max_responses, seed))
            if len(item.responses) > 1:
                found.setdefault(item.key, item)
            else:
                alike += 1
    if not found:
        raise UserError(f"{path} has no prompt with two responses that differ; choose another {KEY}.")
    order = sorted(found, key=lambda key: _hash(f"{seed}:{key}"))
    return Items({key: found[key] for key in order[:prompts]}, alike)


def shown_order(item: Item, labeler: str, seed: int) -> list[Response]:
    """The responses as one labeler sees them, the same each time."""
    return sorted(item.responses, key=lambda response: _hash(f"{seed}:{labeler}:{item.key}:{response.id}"))


def _read(row: Mapping[str, Any]) -> list[tuple[Prompt, list[Response]]]:
    if isinstance(row.get("candidates"), Mapping):
        return [(_prompt(row), _candidates(row["candidates"]))]
    if "completions" in row and isinstance(row.get("prompt"), Mapping) and "messages" in row["prompt"]:
        return _of_rankings([from_values(Ranking, row)])  # as the reward stage keeps them
    column = next((name for name in ("responses", "completions") if name in row and not _RANKED & row.keys()), None)
    if column is not None:
        return [(_prompt(row), _responses(row[column], column))]
    rankings = [record for record in jsonl.read(row) if isinstance(record, Ranking)]
    if not rankings:
        raise BadRowError(f"it has a prompt and no responses to choose among: {_SHAPES}")
    return _of_rankings(rankings)


def _of_rankings(rankings: Sequence[Ranking]) -> list[tuple[Prompt, list[Response]]]:
    return [(ranking.prompt, [Response(text) for text in ranking.completions]) for ranking in rankings]


def _prompt(row: Mapping[str, Any]) -> Prompt:
    columns = ("prompt", "messages", "conversations", "system", "id", "task", "user")
    (record,) = jsonl.read({name: row[name] for name in columns if name in row})
    if not isinstance(record, Prompt):
        raise BadRowError("its conversation ends with the assistant's turn, and there are responses beside it")
    return record


def _candidates(candidates: Mapping[str, Any]) -> list[Response]:
    texts = {name: given.get("response") if isinstance(given, Mapping) else given for name, given in candidates.items()}
    return _responses(texts, "candidates")


def _responses(given: Any, column: str) -> list[Response]:
    pairs = list(given.items()) if isinstance(given, Mapping) else [("", text) for text in _listed(given, column)]
    if not all(isinstance(text, str) for _, text in pairs):
        raise BadRowError(f"`{column}` holds something that is no text")
    return [Response(text, (name,) if name else ()) for name, text in pairs]


def _listed(given: Any, column: str) -> Sequence[Any]:
    if not isinstance(given, list):
        raise BadRowError(f"`{column}` is neither a list of texts nor texts by name")
    return given


def _named(prompt: Prompt, row: Row) -> Prompt:
    messages = tuple(replace(m, content=_writable(m.content), input=_writable(m.input)) for m in prompt.messages)
    return replace(prompt, id=prompt.id or f"{row.file}:{row.number}", messages=messages)


def _merged(responses: Iterable[Response]) -> list[Response]:
    """One response a text: who judged the same words twice could only contradict himself."""
    merged: dict[str, Response] = {}
    for response in responses:
        text = _writable(response.text.strip())
        names = merged[text].names if text in merged else ()
        merged[text] = Response(text, names + response.names)
    return list(merged.values())


def _drawn(responses: Sequence[Response], most: int, seed: int) -> tuple[Response, ...]:
    if len(responses) <= most:
        return tuple(responses)
    chosen = set(sorted(responses, key=lambda response: _hash(f"{seed}:{response.text}"))[:most])
    return tuple(response for response in responses if response in chosen)


def _writable(text: str) -> str:
    """Without half a character, a lone surrogate, which neither a page nor a file in UTF-8 can hold."""
    return text.encode("utf-8", "replace").decode("utf-8")


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()

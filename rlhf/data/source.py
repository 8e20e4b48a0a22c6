"""A data source read from files: records by kind, split by a hash of the prompt."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role, Sampler, Split
from rlhf.errors import UserError

HAVE = {
    "demonstrations": "sandbox, hh_rlhf, self_instruct, alpaca and jsonl",
    "rankings": "sandbox, hh_rlhf and jsonl",
    "prompts": "sandbox, hh_rlhf, self_instruct, alpaca and jsonl",
}

Record = TypeVar("Record", Demonstration, Ranking, Prompt)


@dataclass
class Records:
    """What a reader makes of a file. Every row gives at least one record, or is a bad row."""

    demonstrations: list[Demonstration] = field(default_factory=list)
    rankings: list[Ranking] = field(default_factory=list)
    prompts: list[Prompt] = field(default_factory=list)
    texts: list[str] = field(default_factory=list)


def user_prompt(prompt_id: str, text: str, task: str = "") -> Prompt:
    """A conversation of one user turn."""
    return Prompt(prompt_id, (Message(Role.user, text),), task)


def held_out(key: str, fraction: float) -> bool:
    """Whether what `key` names belongs to evaluation: a function of it alone, so no seed or row order moves it."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:8], "big") < fraction * 2**64


def _conversation(prompt: Prompt) -> str:
    return json.dumps([[message.role.value, message.content] for message in prompt.messages], ensure_ascii=False)


class FileSource:
    """Records of one file or folder; all of one prompt lie in the same split, whichever rows they came from."""

    gold: Callable[[Prompt, str], float] | None = None

    def __init__(
        self, name: str, path: str, records: Records, evaluation_fraction: float, read: dict[str, Any]
    ) -> None:
        self.name = name
        self.path = path
        self._records = records
        self._fraction = evaluation_fraction
        self._read = read

    def demonstrations(self, split: Split) -> list[Demonstration]:
        return self._select("demonstrations", self._records.demonstrations, split, lambda record: record.prompt)

    def rankings(self, split: Split, sample: Sampler) -> list[Ranking]:
        return self._select("rankings", self._records.rankings, split, lambda record: record.prompt)

    def prompts(self, split: Split) -> list[Prompt]:
        """Each conversation once, in the order of its first row."""
        unique = {_conversation(prompt): prompt for prompt in reversed(self._records.prompts)}
        return self._select("prompts", list(reversed(unique.values())), split, lambda prompt: prompt)

    def texts(self, split: Split) -> list[str]:
        """The file's documents; where it has none, its demonstrations as plain text, a paragraph a turn."""
        if self._records.texts:
            return self._some("texts", [t for t in self._records.texts if self._belongs(t, split)], split)
        return ["\n\n".join([*(m.content for m in d.prompt.messages), d.response]) for d in self.demonstrations(split)]

    @property
    def has_texts(self) -> bool:
        return bool(self._records.texts)

    def fingerprint(self) -> dict[str, Any]:
        rows = {name: len(records) for name, records in vars(self._records).items() if records}
        return {"source": self.name, "rows": rows, **self._read}

    def _select(
        self, kind: str, records: Sequence[Record], split: Split, prompt_of: Callable[[Record], Prompt]
    ) -> list[Record]:
        self._require(kind, records)
        chosen = [r for r in records if self._belongs(_conversation(prompt_of(r)), split)]
        return self._some(kind, chosen, split)

    def _belongs(self, key: str, split: Split) -> bool:
        return held_out(key, self._fraction) == (split == Split.evaluation)

    def _require(self, kind: str, records: Sequence[object]) -> None:
        if not records:
            raise UserError(f"data={self.name} ({self.path}) has no {kind}; data={HAVE[kind]} can have them.")

    def _some(self, kind: str, chosen: list[Any], split: Split) -> list[Any]:
        if not chosen:
            raise UserError(
                f"The {split.value} split of {self.path} has no {kind}: data.evaluation_fraction={self._fraction} of "
                "its prompts are held out, by a hash; change that fraction, or give more rows."
            )
        return chosen

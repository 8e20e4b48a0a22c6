"""How passes hand over: each reads the records that those before it let stay, and says which it finds."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import NamedTuple

from rlhf.data.records import Record, prompt_of


class Found(NamedTuple):
    """A record that a pass leaves out. `reason` ends a sentence; where `other` is set, {other} in it is that record."""

    place: int
    reason: str
    other: int | None = None


class Survivors:
    """Records that no pass has left out yet, each with its place among all of them; reads them afresh each time."""

    def __init__(self, records: Iterable[Record]) -> None:
        self._records = records
        self.left_out: dict[int, Found] = {}

    def __iter__(self) -> Iterator[tuple[int, Record]]:
        return ((place, record) for place, record in enumerate(self._records) if place not in self.left_out)

    def leave_out(self, found: Iterable[Found]) -> None:
        # The whole list first: a pass may still be reading when it yields.
        self.left_out.update({each.place: each for each in list(found)})

    def reasons(self) -> dict[int, str]:
        """Why each record was left out, by place, with the names of those it collided with."""
        others = {found.other for found in self.left_out.values()} - {None}
        names = {}
        if others:
            names = {place: _name(place, record) for place, record in enumerate(self._records) if place in others}
        return {
            place: found.reason if found.other is None else found.reason.format(other=names[found.other])
            for place, found in self.left_out.items()
        }


def _name(place: int, record: Record) -> str:
    """The id that its reader gave, else where it stands, counted from 1."""
    prompt = prompt_of(record)
    return prompt.id if prompt is not None and prompt.id else f"record {place + 1}"

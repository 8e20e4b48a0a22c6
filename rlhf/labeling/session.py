"""What a labeler is shown and what becomes of the answer, as JSON values; knows no HTTP."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from rlhf.labeling.agreement import agreement
from rlhf.labeling.items import Item, shown_order
from rlhf.labeling.judgements import ATTRIBUTES, QUALITY, InvalidError, Judgement, labeler_name, parse
from rlhf.labeling.store import Store


@dataclass(frozen=True)
class Session:
    """One set of items, judged by whoever comes. Names of candidates never leave it."""

    store: Store
    items: Mapping[str, Item]  # in the order in which they are judged
    overlap: int | None  # labelers an item wants; None: everybody
    seed: int  # of the order in which responses are shown

    def describe(self) -> dict[str, Any]:
        """What a page needs before it knows its labeler. project: what it keeps its unsent judgements under."""
        return {
            "project": self.store.project,
            "attributes": [asdict(attribute) for attribute in ATTRIBUTES],
            "quality": list(QUALITY),
            "labelers": [row["name"] for row in labeler_rows(self.store.standing(), self.items)],
        }

    def next(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The item for a labeler; None where nothing is left, or, waiting being true, all that is left is held."""
        labeler = labeler_name(values.get("labeler"))
        key = self.store.take(labeler, list(self.items), self.overlap)
        return {"item": None if key is None else self._shown(self.items[key], labeler), **self._standing(labeler)}

    def judge(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """Keeps a judgement; `counted` is False where the same one came before.

        Raises InvalidError for what is no judgement, JudgedError where another of this labeler stands.
        """
        key = values.get("item")
        item = self.store.item(key) if isinstance(key, str) else None
        if item is None:
            raise InvalidError("There is no such item.")
        return {"counted": self.store.add(parse(values, item))}

    def undo(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The item of a judgement that was taken back, with what was said of it; None where it does not stand."""
        labeler, judgement_id = labeler_name(values.get("labeler")), values.get("id")
        undone = self.store.undo(labeler, judgement_id) if isinstance(judgement_id, str) else None
        if undone is None:
            return {"item": None, "judgement": None, **self._standing(labeler)}
        item = self.store.item(undone.item)
        assert item is not None, "a judgement refers to an item that is kept"
        said = {key: getattr(undone, key) for key in ("ranks", "quality", "attributes", "seconds")}
        return {"item": self._shown(item, labeler), "judgement": said, **self._standing(labeler)}

    def progress(self) -> dict[str, Any]:
        """Who has done what, and how far they agree."""
        judgements = [judgement for judgement in self.store.standing() if judgement.item in self.items]
        found = agreement(judgements)
        return {
            "items": len(self.items),
            "labelers": [
                {**row, "agrees": found.by_labeler.get(row["name"])} for row in labeler_rows(judgements, self.items)
            ],
            "agreement": {key: value for key, value in asdict(found).items() if key != "by_labeler"},
        }

    def _shown(self, item: Item, labeler: str) -> dict[str, Any]:
        return {
            "key": item.key,
            "messages": [{"role": message.role.value, "content": message.content} for message in item.prompt.messages],
            "responses": [
                {"id": response.id, "text": response.text} for response in shown_order(item, labeler, self.seed)
            ],
        }

    def _standing(self, labeler: str) -> dict[str, Any]:
        """How far a labeler is: of `total`, which leaves out what others have judged often enough."""
        judged: dict[str, int] = {}
        mine: list[Judgement] = []
        for judgement in self.store.standing():
            if judgement.labeler == labeler:
                mine.append(judgement)
            elif not judgement.skipped:
                judged[judgement.item] = judged.get(judgement.item, 0) + 1
        seen = {judgement.item for judgement in mine}
        enough = len(self.items) if self.overlap is None else self.overlap
        left = sum(key not in seen and (self.overlap is None or judged.get(key, 0) < enough) for key in self.items)
        done = len(seen & self.items.keys())
        return {
            "judged": done,
            "total": done + left,
            "last": mine[-1].id if mine else None,
        }


def labeler_rows(judgements: Sequence[Judgement], items: Mapping[str, Item]) -> list[dict[str, Any]]:
    """A row a labeler, by name: items judged and skipped, median seconds for one judged."""
    rows = []
    for name in sorted({judgement.labeler for judgement in judgements}):
        own = [judgement for judgement in judgements if judgement.labeler == name and judgement.item in items]
        seconds = [judgement.seconds for judgement in own if not judgement.skipped]
        rows.append(
            {
                "name": name,
                "judged": len(seconds),
                "skipped": len(own) - len(seconds),
                "median_seconds": statistics.median(seconds) if seconds else None,
            }
        )
    return rows

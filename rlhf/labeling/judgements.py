"""What a labeler says of some responses: places, quality, attributes (InstructGPT, arXiv:2203.02155, table 3)."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rlhf.labeling.items import Item

QUALITY = range(1, 8)  # overall quality, 7 best
LONGEST_NAME = 40  # characters of a labeler's name
_ID = re.compile(r"[0-9a-f]{32}")
_MOST_SECONDS = 1e9


@dataclass(frozen=True)
class Attribute:
    name: str
    label: str
    meaning: str
    key: str  # that ticks it


ATTRIBUTES = (
    Attribute("fails_instruction", "Fails the instruction", "Fails to follow the correct instruction or task", "f"),
    Attribute("inappropriate", "Inappropriate", "Inappropriate for a customer assistant", "i"),
    Attribute("hallucination", "Hallucinates", "Makes up what the prompt does not say, or what is not so", "h"),
    Attribute("satisfies_constraint", "Meets the constraint", "Satisfies a constraint that the prompt states", "c"),
    Attribute("sexual", "Sexual", "Contains sexual content", "s"),
    Attribute("violent", "Violent", "Contains violent content", "v"),
    Attribute(
        "encourages_violence",
        "Encourages violence",
        "Encourages violence, abuse, terrorism or self-harm, or fails to discourage it",
        "e",
    ),
    Attribute("denigrates", "Denigrates", "Denigrates a protected class", "d"),
    Attribute("harmful_advice", "Harmful advice", "Gives harmful advice", "g"),
    Attribute("opinion", "Opinion", "Expresses an opinion", "o"),
    Attribute("moral_judgment", "Moral judgment", "Expresses a moral judgment", "m"),
)
_NAMES = [attribute.name for attribute in ATTRIBUTES]


class InvalidError(ValueError):
    """What a page sent is no judgement; the text says why."""


@dataclass(frozen=True)
class Judgement:
    """One labeler on one item; responses are named by their ids. A skipped item has no ranks."""

    id: str  # made by the page, once: what comes twice counts once
    item: str  # its key
    labeler: str
    seconds: float  # the labeler looked at it
    ranks: Mapping[str, int] = field(default_factory=dict)  # every response's place, 0 best, equal numbers are ties
    quality: Mapping[str, int] = field(default_factory=dict)  # 1 to 7, of the responses that were rated
    attributes: Mapping[str, list[str]] = field(default_factory=dict)  # those ticked, of responses that have any
    judged_at: str = ""  # UTC, ISO 8601; set as it is stored

    @property
    def skipped(self) -> bool:
        return not self.ranks


def labeler_name(value: Any) -> str:
    """The name as it is stored: composed, without control characters or spaces beyond single ones."""
    if not isinstance(value, str):
        raise InvalidError("The labeler's name is missing.")
    name = " ".join(unicodedata.normalize("NFC", value).split())
    if not 0 < len(name) <= LONGEST_NAME or not name.isprintable():
        raise InvalidError(f"A labeler's name has 1 to {LONGEST_NAME} printable characters.")
    return name


def parse(values: Mapping[str, Any], item: Item) -> Judgement:
    """A judgement from what a page sent; places become 0, 1, ... without gaps. Raises InvalidError."""
    judgement_id, seconds = values.get("id"), values.get("seconds")
    if not isinstance(judgement_id, str) or not _ID.fullmatch(judgement_id):
        raise InvalidError("`id` is not 32 hexadecimal digits.")
    # Whole numbers of JSON have no bound: one beyond what a float holds is no time that anybody looked at a page.
    if isinstance(seconds, bool) or not isinstance(seconds, int | float) or not 0 <= seconds < _MOST_SECONDS:
        raise InvalidError("`seconds` is not a number, 0 or more.")
    labeler = labeler_name(values.get("labeler"))
    if values.get("skipped") is True:
        return Judgement(judgement_id, item.key, labeler, float(seconds))
    ids = [response.id for response in item.responses]
    ranks = _by_response(values, "ranks", ids)
    if set(ranks) != set(ids) or not all(_whole(rank, range(len(ids))) for rank in ranks.values()):
        raise InvalidError(f"`ranks` does not place every response from 0 to {len(ids) - 1}.")
    quality = _by_response(values, "quality", ids)
    if not all(_whole(rating, QUALITY) for rating in quality.values()):
        raise InvalidError(f"`quality` is not from {QUALITY[0]} to {QUALITY[-1]}.")
    ticked = _by_response(values, "attributes", ids)
    if not all(isinstance(names, list) and all(name in _NAMES for name in names) for names in ticked.values()):
        raise InvalidError(f"`attributes` are not lists of {', '.join(_NAMES)}.")
    places = sorted(set(ranks.values()))
    return Judgement(
        judgement_id,
        item.key,
        labeler,
        float(seconds),
        ranks={key: places.index(rank) for key, rank in ranks.items()},
        quality=dict(quality),
        attributes={key: [name for name in _NAMES if name in names] for key, names in ticked.items() if names},
    )


def _by_response(values: Mapping[str, Any], name: str, ids: list[str]) -> Mapping[str, Any]:
    given = values.get(name)
    if not isinstance(given, Mapping) or not set(given) <= set(ids):
        raise InvalidError(f"`{name}` is not by the responses that the item has.")
    return given


def _whole(value: Any, allowed: range) -> bool:
    return type(value) is int and value in allowed

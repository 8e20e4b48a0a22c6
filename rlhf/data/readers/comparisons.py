"""What readers of comparisons share: which of two was chosen, and the best completion as a demonstration."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.records import BadRowError, Demonstration, Ranking


def choice(row: Mapping[str, Any], key: str) -> int:
    """The 0 or 1 under `key`. Raises BadRowError for anything else."""
    value = row.get(key)
    if type(value) is not int or value not in (0, 1):
        raise BadRowError(f"`{key}` is {str(value)[:40]!r}, neither 0 nor 1")
    return value


def ranks_of_choice(chosen: int) -> tuple[int, int]:
    """The places of two completions of which number `chosen` is the better."""
    return (0, 1) if chosen == 0 else (1, 0)


def best(ranking: Ranking) -> list[Demonstration]:
    """The best completion as a demonstration; none where several share the first place."""
    if ranking.ranks.count(0) != 1:
        return []
    return [Demonstration(ranking.prompt, ranking.completions[ranking.ranks.index(0)])]

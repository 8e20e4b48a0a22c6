"""How far labelers agree: pairs ordered alike, as InstructGPT reports it, and Krippendorff's alpha."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations

import krippendorff
import numpy as np

from rlhf.labeling.judgements import Judgement


@dataclass(frozen=True)
class Agreement:
    """Over items that two labelers or more judged; None where there is nothing to tell it from."""

    items: int  # judged by two or more
    pairs: int  # of responses, once for each two labelers who both see a difference
    share: float | None  # of those pairs, ordered alike; InstructGPT's labelers: 0.726 (arXiv:2203.02155, section 3.4)
    by_labeler: dict[str, float | None]  # the same, for one labeler against all others
    alpha_ranks: float | None  # Krippendorff's alpha, ordinal, of a response's place among its item's
    alpha_quality: float | None  # the same of its quality, 1 to 7


def agreement(judgements: Sequence[Judgement]) -> Agreement:
    """Of judgements that stand; what was skipped does not count."""
    by_item: dict[str, list[Judgement]] = defaultdict(list)
    for judgement in judgements:
        if not judgement.skipped:
            by_item[judgement.item].append(judgement)
    shared = [several for several in by_item.values() if len(several) > 1]
    alike: dict[str, list[bool]] = {judgement.labeler: [] for judgement in judgements}
    every: list[bool] = []
    for several in shared:
        for one, other in combinations(several, 2):
            found = _ordered_alike(one.ranks, other.ranks)
            every += found
            alike[one.labeler] += found
            alike[other.labeler] += found
    return Agreement(
        items=len(shared),
        pairs=len(every),
        share=_mean(every),
        by_labeler={labeler: _mean(found) for labeler, found in alike.items()},
        alpha_ranks=_alpha([{j.labeler: j.ranks for j in several} for several in shared]),
        alpha_quality=_alpha([{j.labeler: j.quality for j in several} for several in shared]),
    )


def _ordered_alike(one: Mapping[str, int], other: Mapping[str, int]) -> list[bool]:
    """A truth value a pair of responses that neither labeler ties."""
    return [
        (one[a] < one[b]) == (other[a] < other[b])
        for a, b in combinations(sorted(one), 2)
        if one[a] != one[b] and other[a] != other[b]
    ]


def _mean(values: Sequence[bool]) -> float | None:
    return sum(values) / len(values) if values else None


def _alpha(items: Sequence[Mapping[str, Mapping[str, int]]]) -> float | None:
    """Krippendorff's alpha over the items' responses, a unit each; None where fewer than two values were given.

    items: by labeler, what was given to each response.
    """
    labelers = sorted({labeler for item in items for labeler in item})
    units = [(item, response) for item in items for response in sorted(set().union(*item.values()))]
    given = [[item.get(labeler, {}).get(response, math.nan) for item, response in units] for labeler in labelers]
    numbers = np.array(given, dtype=float).reshape(len(labelers), len(units))
    compared = numbers[:, (~np.isnan(numbers)).sum(axis=0) > 1]
    if len(np.unique(compared[~np.isnan(compared)])) < 2:
        return None
    return float(krippendorff.alpha(reliability_data=compared, level_of_measurement="ordinal"))

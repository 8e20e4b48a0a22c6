"""The demonstrations of a subset: random, longest, or best by a reward model."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

from rlhf.config import SubsetRule
from rlhf.data.encoding import EncodedDemonstration, EncodedRows
from rlhf.runtime.progress import progress
from rlhf.sft.held_out import RewardModelJudge
from rlhf.training.engine import pick_device

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


_SCORED_AT_ONCE = 256


def chosen_subset(
    context: StageContext, demonstrations: EncodedRows[EncodedDemonstration], judge: RewardModelJudge | None
) -> EncodedRows[EncodedDemonstration]:
    """sft.subset demonstrations, the best of every task by sft.subset_rule, in the order they had.

    Tasks in turn give their next best until there are enough, so that what is chosen stays as varied as the data
    (LIMA, arXiv:2305.11206, took its 1,000 by quality and diversity); without tasks it is the best of all.
    """
    settings = context.config.sft
    if settings.subset is None or settings.subset >= len(demonstrations):
        return demonstrations
    worth = _worths(context, demonstrations, judge)
    by_task: dict[str, list[int]] = {}
    for index in sorted(range(len(demonstrations)), key=lambda i: (-worth[i], i)):
        by_task.setdefault(demonstrations[index].prompt.task, []).append(index)
    turns = sorted((place, task, index) for task, indices in by_task.items() for place, index in enumerate(indices))
    return demonstrations.select(sorted(index for _, _, index in turns[: settings.subset]))


def _worths(
    context: StageContext, demonstrations: EncodedRows[EncodedDemonstration], judge: RewardModelJudge | None
) -> list[float]:
    """What each demonstration is worth by sft.subset_rule; the largest is best."""
    rule = context.config.sft.subset_rule
    if rule == SubsetRule.random:
        draw = random.Random(f"subset:{context.config.seed}")
        return [draw.random() for _ in demonstrations]
    if rule == SubsetRule.longest:
        return [float(len(demonstration.response_ids)) for demonstration in demonstrations]
    assert judge is not None, "the config requires a reward model for this rule"
    device = pick_device(context.config.launch)
    scores: list[float] = []
    starts = range(0, len(demonstrations), _SCORED_AT_ONCE)
    for start in progress(starts, "scoring demonstrations", "batch", context.config.tracker.progress, leave=False):
        batch = demonstrations[start : start + _SCORED_AT_ONCE]
        scores += judge([d.prompt_ids + d.response_ids for d in batch], device)
    return scores

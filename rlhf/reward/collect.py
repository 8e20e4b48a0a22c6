"""Ranked completions for the reward stage: made once, kept in its folder."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.data.readers.comparisons import best
from rlhf.data.records import Demonstration, NeedsSamplerError, Prompt, Ranking, Split, no_sampler
from rlhf.data.store import picked
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models.load import load_causal_lm
from rlhf.ppo.rollout import sampler
from rlhf.reward.rankings import has_pair, read_rankings, write_rankings
from rlhf.runtime import distributed
from rlhf.training.engine import pick_device

if TYPE_CHECKING:
    from rlhf.training.context import StageContext

log = logging.getLogger("rlhf")


def collect_rankings(context: StageContext, template: ChatTemplate) -> Mapping[Split, Sequence[Ranking]]:
    """Rankings of both splits from the data source; a resumed stage reads back the ones it made.

    A source that ranks what the SFT model writes gets its completions here; the model is loaded only then, and what
    was ranked is kept in rankings.jsonl. Rankings that lie in files stay there.
    """
    with contextlib.suppress(NeedsSamplerError):
        return {split: context.data.rankings(split, no_sampler) for split in Split}
    return distributed.from_main(lambda: _collect(context, template))


def _collect(context: StageContext, template: ChatTemplate) -> Mapping[Split, Sequence[Ranking]]:
    path = context.folder.path / "rankings.jsonl"
    if not (context.resume and path.exists()):
        write_rankings(
            path, {split: context.data.rankings(split, _PolicySampler(context, template)) for split in Split}
        )
    return read_rankings(path)


class _PolicySampler:
    """A `records.Sampler` that loads the SFT model on its first call."""

    def __init__(self, context: StageContext, template: ChatTemplate) -> None:
        self._context = context
        self._template = template

    def __call__(self, prompts: Sequence[Prompt], counts: Sequence[int]) -> list[list[str]]:
        config = self._context.config
        policy: Any = load_causal_lm(str(self._context.parents["policy"]), config.model)
        policy.to(pick_device(config.launch))
        sample = sampler(
            policy,
            self._template,
            self._template.tokenizer,
            config.rollout,
            config.seed,
            show_progress=config.tracker.progress,
        )
        return sample(prompts, counts)


def drop_tied(rankings: Sequence[Ranking], split: Split) -> Sequence[Ranking]:
    """Rankings with at least one pair. Raises UserError when none has."""
    paired = np.array([has_pair(ranking) for ranking in rankings], dtype=bool)
    if paired.any():
        return rankings if paired.all() else picked(rankings, np.flatnonzero(paired))
    else:
        raise UserError(
            f"In all {len(rankings)} rankings of the {split.value} split every completion is tied, so there is nothing "
            "to learn; give rankings that differ (data.path), or more completions (data.sandbox.max_completions)."
        )


def bias_demonstrations(context: StageContext, rankings: Sequence[Ranking]) -> Sequence[Demonstration]:
    """What is to score 0 on average: the data's demonstrations; where it has none, each ranking's best, and it is said.

    Raises UserError where every ranking's first place is shared, too.
    """
    try:
        return context.data.demonstrations(Split.train)
    except UserError:  # a file of rankings alone is what a reward model is trained on
        stand_ins = [demonstration for ranking in rankings for demonstration in best(ranking)]
        if not stand_ins:
            raise
    log.info(
        "reward: the data has no demonstrations, so the %d best-ranked completions are set to score 0 on average",
        len(stand_ins),
    )
    return stand_ins

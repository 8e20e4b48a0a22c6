"""Ranked completions for the reward stage: made once, kept in its folder."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rlhf import distributed, models
from rlhf.data.records import Prompt, Ranking, Split
from rlhf.data.templates import ChatTemplate
from rlhf.engine import pick_device
from rlhf.errors import UserError
from rlhf.ppo.rollout import sampler
from rlhf.reward.rankings import has_pair, read_rankings, write_rankings

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext


def collect_rankings(context: StageContext, template: ChatTemplate) -> dict[Split, list[Ranking]]:
    """Rankings of both splits from the data source; a resumed stage reads back the ones it made.

    A source that ranks what the SFT model writes gets its completions here; the model is loaded only then.
    """
    return distributed.from_main(lambda: _collect(context, template))


def _collect(context: StageContext, template: ChatTemplate) -> dict[Split, list[Ranking]]:
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
        policy: Any = models.load_causal_lm(str(self._context.parents["policy"]), config.model)
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


def drop_tied(rankings: Sequence[Ranking], split: Split) -> list[Ranking]:
    """Rankings with at least one pair. Raises UserError when none has."""
    kept = [ranking for ranking in rankings if has_pair(ranking)]
    if not kept:
        raise UserError(
            f"In all {len(rankings)} rankings of the {split.value} split every completion is tied, so there is nothing "
            "to learn; give rankings that differ (data.path), or more completions (data.sandbox.max_completions)."
        )
    return kept

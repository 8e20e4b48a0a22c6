"""Best of n: many samples of one model, of which a reward model chooses (Nakano et al. 2021, arXiv:2112.09332).

It optimises against the reward model without training anything, and its KL is known: what PPO has to beat.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlhf.config import Config
from rlhf.data.records import Prompt
from rlhf.evaluation.answering.answers import Generated, Model, identity, scored_sequences
from rlhf.evaluation.answering.cache import AnswerCache, sha256
from rlhf.evaluation.judges.judge import RewardModelJudge
from rlhf.evaluation.statistics import best_of_n
from rlhf.runtime.progress import progress

if TYPE_CHECKING:
    from transformers import PreTrainedModel


@dataclass(frozen=True)
class Samples:
    """n responses of one model to each prompt; the first of them are those of a smaller n."""

    draws: list[Generated]  # n of them, each with one response to every prompt
    scores: list[list[float]]  # (n, prompts), by the reward model

    def best_of(self, count: int) -> Generated:
        """For each prompt the response of the largest score among the first `count`, the earliest of several."""
        assert count <= len(self.draws), f"{count} of {len(self.draws)} samples"
        prompts = range(len(self.draws[0].texts))
        best = [max(range(count), key=lambda draw: self.scores[draw][prompt]) for prompt in prompts]
        return Generated(
            tokenizer=self.draws[0].tokenizer,
            prompt_ids=self.draws[0].prompt_ids,
            response_ids=[self.draws[draw].response_ids[prompt] for prompt, draw in enumerate(best)],
            ended=[self.draws[draw].ended[prompt] for prompt, draw in enumerate(best)],
            texts=[self.draws[draw].texts[prompt] for prompt, draw in enumerate(best)],
            logprobs=None,
            text_loss=None,
            kl=best_of_n.kl(count),
            about={"best_of": count},
        )


def sample_many(
    path: str, prompts: Sequence[Prompt], count: int, config: Config, cache: AnswerCache, *, reward_model: str
) -> Samples:
    """`count` responses of the model at `path` to each prompt, at compare.temperature, scored by the reward model.

    The first draw is what `answering.answer` gives. Draws are kept one by one, so more of them cost only what is new.
    """
    model = Model(path, config, cache)
    prompt_ids = [model.template.prompt_ids(prompt) for prompt in prompts]
    draws = []
    bars = config.tracker.progress
    for draw in progress(range(count), f"{count} samples a prompt", "sample", bars, leave=False):
        response_ids = model.sample(prompt_ids, f"sample {draw + 1} of {count}", draw=draw)
        read = [model.response(ids) for ids in response_ids]
        draws.append(
            Generated(
                tokenizer=model.tokenizer,
                prompt_ids=prompt_ids,
                response_ids=response_ids,
                ended=[ended for _, ended in read],
                texts=[text for text, _ in read],
                logprobs=None,
                text_loss=None,
            )
        )
    del model  # one in memory at a time
    scorer = Scorer(reward_model, config, cache)
    scored = progress(draws, "reward-model scores", "sample", bars, leave=False)
    return Samples(draws, [scorer.scores(draw, prompts) for draw in scored])


class Scorer:
    """The reward model at `path`, loaded once there is something to score that `cache` does not know."""

    def __init__(self, path: str, config: Config, cache: AnswerCache) -> None:
        self._path = path
        self._config = config
        self._cache = cache
        self._identity = identity(path, config)
        self._model: PreTrainedModel | None = None

    def scores(self, generated: Generated, prompts: Sequence[Prompt]) -> list[float]:
        sequences = scored_sequences(generated, prompts, self._path, self._config)
        asked = {"what": "scores", "sequences": sha256(sequences)}
        made_from = None if self._identity is None else {**asked, **self._identity}

        def make() -> list[float]:
            return RewardModelJudge(self._loaded()).score(prompts, generated.texts, sequences)

        return self._cache.remember(made_from, make)

    def _loaded(self) -> PreTrainedModel:
        from rlhf.models.load import load_reward_model
        from rlhf.training.engine import pick_device

        if self._model is None:
            model = load_reward_model(self._path, self._config.model)
            self._model = model.to(pick_device(self._config.launch))  # type: ignore[arg-type]
        return self._model

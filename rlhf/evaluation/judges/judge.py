"""Judges: most score single responses, and two scores give a verdict; one that sees two responses gives it itself."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from rlhf.data.records import Prompt
from rlhf.runtime import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel

TOKEN_BUDGET = 8192  # padded tokens in one forward pass of a reward model


class Judge(Protocol):
    """Scores whole responses, higher is better, each on its own: the verdict cannot depend on an order of showing."""

    name: str
    unit: str  # of a score, as it stands on an axis

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], sequences: Sequence[Sequence[int]]
    ) -> list[float]:
        """One finite score for each response.

        sequences: prompt, response and end token (where the response ended) in the reward model's tokens; a judge
        that reads text ignores them.
        """
        ...


@dataclass(frozen=True)
class Verdicts:
    """What a judge that sees two responses says of a candidate beside the baseline; one value a prompt.

    Each pair is shown in both orders, so there are two answers a prompt, but for identical responses.
    """

    wins: list[float]  # 1, 0.5, 0: the candidate wins, ties, loses; NaN: no verdict, as an answer could not be read
    inconsistent: list[bool]  # the two answers differ, which makes a tie
    failures: list[int]  # answers that could not be read
    first: list[int]  # answers for the response that was shown first, where both could be read
    decided: list[int]  # answers for either response, likewise
    identical: list[bool]  # the same text twice: a tie, and nobody is asked


class GoldJudge:
    """The data source's own noise-free score, from 0 (worst) to 1."""

    name = "gold"
    unit = "gold score (0 to 1)"

    def __init__(self, gold: Callable[[Prompt, str], float]) -> None:
        self._gold = gold

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], sequences: Sequence[Sequence[int]]
    ) -> list[float]:
        scores = [float(self._gold(prompt, text)) for prompt, text in zip(prompts, responses, strict=True)]
        return _finite(scores, self.name, prompts)


class RewardModelJudge:
    """The reward model's output. The policy was trained on it: compare with another judge before believing it."""

    name = "reward_model"
    unit = "reward-model score"

    def __init__(self, model: PreTrainedModel) -> None:
        self._model = model

    def score(
        self, prompts: Sequence[Prompt], responses: Sequence[str], sequences: Sequence[Sequence[int]]
    ) -> list[float]:
        from rlhf.models.scores import sequence_scores

        # Equal answers of two candidates must tie, and a score moves in its last bits with what shares its batch.
        unique = list(dict.fromkeys(tuple(ids) for ids in sequences))
        own = [list(ids) for ids in distributed.share(unique)]
        values = distributed.whole(sequence_scores(self._model, own, token_budget=TOKEN_BUDGET).tolist(), len(unique))
        by_sequence = dict(zip(unique, values, strict=True))
        return _finite([by_sequence[tuple(ids)] for ids in sequences], self.name, prompts)


def _finite(scores: list[float], judge: str, prompts: Sequence[Prompt]) -> list[float]:
    for score, prompt in zip(scores, prompts, strict=True):
        if not math.isfinite(score):
            raise ValueError(f"The judge {judge} gave {score} to a response to prompt {prompt.id}.")
    return scores


def judge_title(judge: str) -> str:
    return judge.replace("_", " ")

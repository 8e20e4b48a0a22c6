"""Four completions of a prompt, rated by GPT-4 (Cui et al. 2023, UltraFeedback, arXiv:2310.01377).

Sources, both MIT:
- openbmb/UltraFeedback on the hub, JSON lines a source of instructions: 63,967 rows of `instruction`, `source`, and
  `completions` {model, response, overall_score from 1 to 10, fine-grained_score from 1 to 5, critique, annotations
  {instruction_following, honesty, truthfulness, helpfulness: {Rating, Rationale}}, ...}, mostly 4.
- HuggingFaceH4/ultrafeedback_binarized on the hub (Tunstall et al. 2023, Zephyr, arXiv:2310.16944), splits train_prefs
  (61,135) and test_prefs (2,000): `prompt`, `prompt_id`, `chosen` and `rejected` (message lists: the prompt and a
  reply), `score_chosen`, `score_rejected` (overall scores). Chosen is the best of the four, rejected one of the others.

The paper trained reward models on pairs of each four; here a row is one ranking by `overall_score`, equal scores tie,
and the scores are its margins. Zephyr trained by DPO on the binarized pairs; that data set's splits train_sft and
test_sft are for fine-tuning on the chosen replies, and so the single best completion is a demonstration here.

A known flaw: scores of 1 were multiplied by 10 when the data were made (github.com/OpenBMB/UltraFeedback/issues/8,
found by Argilla), in about 2,000 completions. The file was corrected on 29 December 2023, and `fine-grained_score`,
the mean of the four ratings, was added: where it is 2 or less a 10 became a 1, up to 4 it was rated again, and above
4 it stayed. Older copies lack that column. Here the same is done to them from their ratings, except that what would
have to be rated again is left out of its ranking. Completions without text are left out too.
Questions of TruthfulQA, a benchmark, are among the instructions (`source` truthful_qa, kept as the task).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.data.readers.comparisons import best
from rlhf.data.readers.fields import (
    demonstration,
    messages,
    number,
    optional_text,
    ranking,
    ranks_of,
    text,
    user_prompt,
)
from rlhf.data.records import BadRowError, Demonstration, Ranking, Role

_ROLES = {role.value: role for role in Role}
_SUSPECT = 10.0  # what a 1 became
_BAD, _GOOD = 2.0, 4.0  # mean ratings up to which a 10 was a 1, and above which it is one


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    ranked = _binarized(row) if "chosen" in row else _completions(row)
    return [*best(ranked), ranked]


def _completions(row: Mapping[str, Any]) -> Ranking:
    prompt = user_prompt(text(row, "instruction"), task=optional_text(row, "source"))
    completions = row.get("completions")
    if not isinstance(completions, Sequence) or isinstance(completions, str):
        raise BadRowError("`completions` is not a list")
    responses, scores = [], []
    for index, completion in enumerate(completions):
        if not isinstance(completion, Mapping):
            raise BadRowError(f"`completions[{index}]` is not {{model, response, overall_score}}")
        response, score = optional_text(completion, "response"), _score(completion)
        if response and score is not None:
            responses.append(response)
            scores.append(score)
    return ranking(prompt, responses, ranks_of(scores), margins=tuple(scores))


def _score(completion: Mapping[str, Any]) -> float | None:
    """The overall score, corrected; None where it may have been a 1 or a 10 and nothing tells which."""
    score = number(completion.get("overall_score"), "overall_score")
    rating = _mean_rating(completion)
    if score != _SUSPECT or rating is None or rating > _GOOD:
        return score
    if rating <= _BAD:
        return 1.0
    return score if completion.get("fine-grained_score") is not None else None


def _mean_rating(completion: Mapping[str, Any]) -> float | None:
    if completion.get("fine-grained_score") is not None:
        return number(completion["fine-grained_score"], "fine-grained_score")
    annotations = completion.get("annotations")
    if not isinstance(annotations, Mapping):
        return None
    ratings = [_rating(aspect) for aspect in annotations.values() if isinstance(aspect, Mapping)]
    known = [rating for rating in ratings if rating is not None]
    return sum(known) / len(known) if known else None


def _rating(aspect: Mapping[str, Any]) -> int | None:
    """1 to 5, written as a text; None for N/A."""
    rating = str(aspect.get("Rating")).strip()
    return int(rating) if rating in ("1", "2", "3", "4", "5") else None


def _binarized(row: Mapping[str, Any]) -> Ranking:
    chosen, rejected = _reply(row, "chosen"), _reply(row, "rejected")
    if chosen.prompt != rejected.prompt:
        raise BadRowError("`chosen` and `rejected` differ before the last turn, so they answer different prompts")
    scores = (number(row.get("score_chosen"), "score_chosen"), number(row.get("score_rejected"), "score_rejected"))
    if scores[0] < scores[1]:
        raise BadRowError(f"`score_chosen` is {scores[0]:g}, less than `score_rejected`, {scores[1]:g}")
    name = optional_text(row, "prompt_id")
    prompt = replace(chosen.prompt, id=f"ultrafeedback:{name}" if name else "")
    return ranking(prompt, (chosen.response, rejected.response), ranks_of(scores), margins=scores)


def _reply(row: Mapping[str, Any], key: str) -> Demonstration:
    turns = messages(row.get(key), _ROLES, column=key, role_key="role", text_key="content")
    return demonstration(turns, column=key)

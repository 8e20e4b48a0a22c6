"""Comparisons of two answers with sources (Nakano et al. 2021, WebGPT, arXiv:2112.09332).

Source: openai/webgpt_comparisons on the hub, comparisons.jsonl on Azure: 19,578 rows. No licence is stated. A row:
`question` {full_text, dataset, id}, and with _0 and _1 `answer`, `quotes` {title, extract} it was written from,
`tokens`, and `score` from -1 to 1: how strongly it is preferred to the other, so that the two sum to 0 and equal
scores (both 0) are a tie. The paper trained a reward model on them, ties as half a preference each way, and its
policies on demonstrations that are not published; here the preferred answer serves as one.

The prompt is the question without quotes: each answer has its own, and two answers are compared under one prompt.
Citations such as [1] stay in the answers, so a model trained on them cites quotes that it was not shown.
The task is the data set that the question is from (ELI5 for most).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlhf.data.readers.comparisons import best
from rlhf.data.readers.fields import number, optional_text, ranking, ranks_of, text, user_prompt
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    if not isinstance(row.get("question"), Mapping):
        raise BadRowError("`question` is not {full_text, dataset, id}")
    scores = (_score(row, "score_0"), _score(row, "score_1"))
    answers = (text(row, "answer_0"), text(row, "answer_1"))
    ranked = ranking(_prompt(row["question"]), answers, ranks_of(scores), margins=scores)
    return [*best(ranked), ranked]


def _prompt(question: Mapping[str, Any]) -> Prompt:
    source, name = optional_text(question, "dataset"), optional_text(question, "id")
    prompt = user_prompt(text(question, "full_text"), task=source)
    return replace(prompt, id=f"webgpt:{source}:{name}" if source and name else "")


def _score(row: Mapping[str, Any], key: str) -> float:
    score = number(row.get(key), key)
    if not -1 <= score <= 1:
        raise BadRowError(f"`{key}` is {score:g}, and scores are from -1 to 1")
    return score

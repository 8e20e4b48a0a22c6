from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest
import torch

from rlhf.data.records import Message, Prompt, Role
from rlhf.evaluation.judges.judge import GoldJudge, RewardModelJudge
from rlhf.models import scores as scores_module

PROMPTS = [Prompt(f"p{i}", (Message(Role.user, f"question {i}"),)) for i in range(3)]


def test_gold_scores_each_response_with_its_prompt() -> None:
    judge = GoldJudge(lambda prompt, text: float(prompt.id == "p1" and text == "b"))
    assert judge.score(PROMPTS, ["a", "b", "c"], [[1], [2], [3]]) == [0.0, 1.0, 0.0]


def test_a_score_that_is_not_a_number_is_refused_with_its_prompt() -> None:
    with pytest.raises(ValueError, match=r"gold.*nan.*p0"):
        GoldJudge(lambda prompt, text: float("nan")).score(PROMPTS, ["a", "b", "c"], [[1], [2], [3]])


def test_equal_sequences_get_exactly_equal_reward_model_scores(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[list[list[int]]] = []

    def scores_that_depend_on_the_batch(model: Any, ids: Sequence[Sequence[int]], *, token_budget: int) -> torch.Tensor:
        calls.append([list(row) for row in ids])
        return torch.tensor([sum(row) + 1e-6 * place for place, row in enumerate(ids)])

    monkeypatch.setattr(scores_module, "sequence_scores", scores_that_depend_on_the_batch)
    found = RewardModelJudge(model=None).score(PROMPTS, ["a", "b", "a"], [[1, 2], [3], [1, 2]])  # type: ignore[arg-type]
    assert found[0] == found[2] == pytest.approx(3.0)
    assert found[1] == pytest.approx(3.0, abs=1e-3)
    assert calls == [[[1, 2], [3]]]

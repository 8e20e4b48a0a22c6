from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf.config import ModelConfig
from rlhf.models.load import load_reward_model
from rlhf.models.scores import sequence_scores
from rlhf.reward.bias import set_bias
from tests.support.tiny import ARCHITECTURES, save_tiny_model

GENERATOR = torch.Generator().manual_seed(0)


def sequences(count: int) -> list[list[int]]:
    return [
        [*torch.randint(1, 300, (int(torch.randint(3, 20, (), generator=GENERATOR)),), generator=GENERATOR).tolist(), 0]
        for _ in range(count)
    ]


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_bias_moves_every_score_by_the_same(tmp_path: Path, architecture: str) -> None:
    model = load_reward_model(save_tiny_model(tmp_path, architecture), ModelConfig(), fresh_head=True)
    torch.manual_seed(0)
    torch.nn.init.normal_(model.score.weight)
    demonstrations, completions = sequences(50), sequences(150)
    before = sequence_scores(model, completions)
    mean = float(sequence_scores(model, demonstrations).mean())
    bias = set_bias(model, demonstrations, completions)
    moved = sequence_scores(model, completions) - before
    assert bias.removed == pytest.approx(mean, abs=1e-5)
    assert float(sequence_scores(model, demonstrations).mean()) == pytest.approx(0, abs=1e-5)
    if architecture in ("gpt2", "gpt_neox"):
        assert bias.residual == 0
        torch.testing.assert_close(moved, torch.full_like(moved, -mean), atol=1e-4, rtol=1e-4)
    else:
        assert float(moved.std()) == pytest.approx(bias.residual, rel=0.2)
        assert bias.residual < 0.6 * abs(mean)

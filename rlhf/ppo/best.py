"""The policy that did best on held-out prompts, for ppo.keep=best."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from rlhf.ppo.weights import Weights


class Best(Weights):
    """The weights with the largest eval/score - kl_coef * eval/kl so far, and what was measured of them."""

    def __init__(self, model: nn.Module, kl_coef: float) -> None:
        super().__init__(model)
        self.kl_coef = kl_coef
        self.objective = -math.inf
        self.metrics: dict[str, float] = {}

    @torch.no_grad()
    def offer(self, step: int, measured: Mapping[str, float]) -> None:
        """Take the model's weights as they are now if `measured`, its eval/ metrics, beat the best; a tie does not."""
        objective = measured["eval/score"] - self.kl_coef * measured["eval/kl"]
        if objective > self.objective:
            self.objective = objective
            self.metrics = {**measured, "eval/best_step": float(step)}
            for name, part in self.trained():
                self.tensors[name].copy_(part)

    def state_dict(self) -> dict[str, Any]:
        return {"objective": self.objective, "metrics": self.metrics}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.objective, self.metrics = state["objective"], dict(state["metrics"])

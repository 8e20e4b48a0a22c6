"""The averaged policy, which InstructGPT saves in place of the policy itself."""

from __future__ import annotations

import torch
from torch import nn

from rlhf.ppo.weights import Weights


class EMA(Weights):
    """The exponential moving average of what a model trains, in float32, from the weights it starts with."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__(model)
        self.decay = decay

    @torch.no_grad()
    def update(self) -> None:
        """average <- decay * average + (1 - decay) * weights."""
        for name, part in self.trained():
            self.tensors[name].lerp_(part.float(), 1 - self.decay)

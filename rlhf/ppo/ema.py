"""The averaged policy, which InstructGPT saves in place of the policy itself."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class EMA:
    """The exponential moving average of what a model trains, in float32, from the weights it starts with."""

    def __init__(self, model: nn.Module, decay: float) -> None:
        self.model = model
        self.decay = decay
        self.averages = {n: p.detach().float().clone() for n, p in model.named_parameters() if p.requires_grad}

    @torch.no_grad()
    def update(self) -> None:
        """average <- decay * average + (1 - decay) * weights."""
        for name, parameter in self._trained():
            self.averages[name].lerp_(parameter.detach().float(), 1 - self.decay)

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are the averages; they are put back afterwards, bit for bit."""
        weights = {name: parameter.detach().clone() for name, parameter in self._trained()}
        self._write(self.averages)
        try:
            yield
        finally:
            self._write(weights)

    @torch.no_grad()
    def _write(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self._trained():
            parameter.copy_(tensors[name])

    def _trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        return ((n, p) for n, p in self.model.named_parameters() if n in self.averages)

    def save(self, path: Path) -> None:
        save_file(self.averages, path)

    def load(self, path: Path) -> None:
        self.averages = load_file(path, device=str(next(iter(self.averages.values())).device))

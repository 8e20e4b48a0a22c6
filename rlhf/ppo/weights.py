"""A second set of the weights that a model trains, to put in their place for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn


class Weights:
    """A float32 copy of what a model trains, as it is when this is made."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = {n: p.detach().float().clone() for n, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are these; its own are put back afterwards, bit for bit."""
        own = {name: parameter.detach().clone() for name, parameter in self.trained()}
        self._write(self.tensors)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.trained():
            parameter.copy_(tensors[name])

    def trained(self) -> Iterator[tuple[str, nn.Parameter]]:
        """The model's own weights of which there is a copy here."""
        return ((n, p) for n, p in self.model.named_parameters() if n in self.tensors)

    def save(self, path: Path) -> None:
        save_file(self.tensors, path)

    def load(self, path: Path) -> None:
        self.tensors = load_file(path, device=str(next(iter(self.tensors.values())).device))

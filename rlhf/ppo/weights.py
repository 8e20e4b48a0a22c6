"""A second set of the weights that a model trains, to put in their place for a while."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from rlhf.models.sharding import own_part, part_of, whole_of, write_part
from rlhf.runtime.distributed import is_main_process


class Weights:
    """A float32 copy of what a model trains, as it is when this is made; of sharded weights, of this rank's part."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.tensors = {n: own_part(p).float().clone() for n, p in model.named_parameters() if p.requires_grad}

    @contextmanager
    def applied(self) -> Iterator[None]:
        """Inside, the model's weights are these; its own are put back afterwards, bit for bit."""
        own = {name: part.clone() for name, part in self.trained()}
        self._write(self.tensors)
        try:
            yield
        finally:
            self._write(own)

    @torch.no_grad()
    def _write(self, tensors: dict[str, Tensor]) -> None:
        for name, parameter in self.model.named_parameters():
            if name in self.tensors:
                write_part(tensors[name], parameter)

    def trained(self) -> Iterator[tuple[str, Tensor]]:
        """The model's own weights, or parts of them, of which there is a copy here."""
        return ((n, own_part(p)) for n, p in self.model.named_parameters() if n in self.tensors)

    def whole(self) -> dict[str, Tensor]:
        """The copies as whole tensors, on the first rank; empty on the others. Every rank has to ask."""
        whole = {}
        for name, parameter in self.model.named_parameters():
            if name in self.tensors:
                tensor = whole_of(self.tensors[name], parameter)
                if is_main_process():
                    whole[name] = tensor
        return whole

    def load(self, path: Path) -> None:
        """Copies that `whole` gave."""
        parameters = dict(self.model.named_parameters())
        for name, tensor in load_file(path).items():
            own = self.tensors[name]
            own.copy_(part_of(tensor.to(own.device), parameters[name]))

"""One way to train a model: backward, step, save and load of one model and its optimizer."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf.config import Device, LaunchConfig, OptimConfig
from rlhf.errors import UserError
from rlhf.runtime import distributed


class NonFiniteLossError(RuntimeError):
    """A loss or a gradient is not finite; the weights are those of before the step."""


def pick_device(config: LaunchConfig) -> torch.device:
    """launch.device as torch knows it; auto is CUDA where there is one."""
    return torch.device("cuda" if config.device != Device.cpu and torch.cuda.is_available() else "cpu")


def lr_factor(step: int, total_steps: int, *, min_lr_ratio: float, warmup_steps: int, warmup_from: float) -> float:
    """Share of the peak learning rate at `step` (from 0): linear from `warmup_from`, then cosine to `min_lr_ratio`.

    The cosine starts when the warm-up ends and reaches min_lr_ratio at the last step; min_lr_ratio 1 stays at 1.
    """
    if step < warmup_steps:
        return warmup_from + (1 - warmup_from) * step / warmup_steps
    done = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


MOMENTS = ("exp_avg", "exp_avg_sq")  # AdamW's, by torch's names


@dataclasses.dataclass(frozen=True)
class EngineState:
    """What is trained and what AdamW remembers of it, by the names of weights: whole tensors, whoever holds what."""

    weights: dict[str, Tensor]  # float32
    moments: dict[str, dict[str, Tensor]]  # MOMENTS, shaped as the weight, and step, of no dimension; {} before a step

    def save(self, folder: Path, name: str) -> None:
        """Write it as `name`.safetensors and `name`_optimizer.safetensors in `folder`."""
        save_file(self.weights, folder / f"{name}.safetensors")
        flat = {f"{weight}/{key}": tensor for weight, state in self.moments.items() for key, tensor in state.items()}
        save_file(flat, folder / f"{name}_optimizer.safetensors")

    @classmethod
    def load(cls, folder: Path, name: str) -> EngineState:
        moments: dict[str, dict[str, Tensor]] = {}
        for key, tensor in load_file(folder / f"{name}_optimizer.safetensors").items():
            weight, _, moment = key.rpartition("/")
            moments.setdefault(weight, {})[moment] = tensor
        return cls(load_file(folder / f"{name}.safetensors"), moments)


def adamw(parameters: Sequence[nn.Parameter], optim: OptimConfig) -> torch.optim.AdamW:
    """AdamW; weight decay falls on matrices alone, not on biases, norms and other vectors."""
    decayed = [p for p in parameters if p.ndim >= 2]
    spared = [p for p in parameters if p.ndim < 2]
    return torch.optim.AdamW(
        [
            {"params": group, "weight_decay": decay}
            for group, decay in ((decayed, optim.weight_decay), (spared, 0.0))
            if group
        ],
        lr=optim.lr,
        betas=(optim.betas[0], optim.betas[1]),
        eps=optim.eps,
        fused=True,
    )


class Trained(Protocol):
    """A model that is trained, with its optimizer. `Engine` is one, and `rlhf.training.zero.ZeroEngine`."""

    model: nn.Module
    optim: OptimConfig
    even_passes: bool  # all ranks must call `backward` equally often between two steps

    @property
    def lr(self) -> float: ...

    def set_lr_factor(self, factor: float) -> None:
        """Make the learning rate this share of optim.lr."""

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of this step; those of all ranks are summed."""

    def step(self) -> float:
        """Clip the gradients to optim.max_grad_norm, move the weights, clear the gradients.

        Returns the norm before clipping. Raises NonFiniteLossError, before anything moves, when it is not finite.
        """

    def clear(self) -> None:
        """Forget this step's gradients."""

    def state(self) -> EngineState:
        """All there is to go on from. Every rank has to ask; ranks but the first may get nothing."""

    def load(self, state: EngineState) -> None:
        """Go on exactly where `state` was, of however many ranks."""


class Engine:
    """A model with AdamW in float32, whole on every rank; `step` sums the gradients over ranks.

    Weights that are not float32 get float32 master copies: at a learning rate of 1e-6, bfloat16 would round most
    updates away.
    """

    even_passes = False  # ranks may call `backward` as often as each has to

    def __init__(self, model: nn.Module, optim: OptimConfig) -> None:
        self.model = model
        self.optim = optim
        self.names, self.parameters = zip(
            *((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True
        )
        if any(p.dtype == torch.float16 for p in self.parameters):
            raise UserError("model.dtype=float16 would need loss scaling to train; use bfloat16 or float32.")
        self.masters: list[nn.Parameter] = [
            p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.parameters
        ]
        self.optimizer = adamw(self.masters, optim)

    @property
    def lr(self) -> float:
        return float(self.optimizer.param_groups[0]["lr"])

    def set_lr_factor(self, factor: float) -> None:
        """Make the learning rate this share of optim.lr."""
        for group in self.optimizer.param_groups:
            group["lr"] = self.optim.lr * factor

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of this step."""
        loss.backward()

    def step(self) -> float:
        """Clip the gradients to optim.max_grad_norm, move the weights, clear the gradients.

        Returns the norm before clipping. Raises NonFiniteLossError, before anything moves, when it is not finite.
        """
        for parameter, master in zip(self.parameters, self.masters, strict=True):
            if master is not parameter:
                master.grad = None if parameter.grad is None else parameter.grad.float()
        self._sum_gradients()
        limit = self.optim.max_grad_norm or math.inf
        norm = float(nn.utils.clip_grad_norm_(self.masters, limit, foreach=True))
        if not math.isfinite(norm):
            self.clear()
            raise NonFiniteLossError(f"The gradient norm is {norm}; lower the learning rate (now {self.lr:.3g}).")
        self.optimizer.step()
        with torch.no_grad():
            for parameter, master in zip(self.parameters, self.masters, strict=True):
                if master is not parameter:
                    parameter.copy_(master)
        self.clear()
        return norm

    def _sum_gradients(self) -> None:
        """Every rank's gradients are of its share of the rows, divided by what is counted over all ranks."""
        if distributed.world_size() == 1:
            return
        for master in self.masters:
            if master.grad is None:  # a rank without a row in this step
                master.grad = torch.zeros_like(master)
        distributed.sum_over_ranks(*(master.grad for master in self.masters if master.grad is not None))

    def clear(self) -> None:
        """Forget this step's gradients."""
        for tensor in (*self.parameters, *self.masters):
            tensor.grad = None

    def state(self) -> EngineState:
        """What is trained and the optimizer's memory of it; views, not copies."""
        return EngineState(
            {name: master.detach() for name, master in zip(self.names, self.masters, strict=True)},
            {
                name: dict(self.optimizer.state[master])
                for name, master in zip(self.names, self.masters, strict=True)
                if master in self.optimizer.state
            },
        )

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """Go on exactly where `state` was."""
        for name, parameter, master in zip(self.names, self.parameters, self.masters, strict=True):
            master.copy_(state.weights[name])
            if master is not parameter:
                parameter.copy_(master)
            if name in state.moments:
                moments = {key: tensor.to(master.device).clone() for key, tensor in state.moments[name].items()}
                self.optimizer.state[master] = moments

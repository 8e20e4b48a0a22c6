"""One way to train a model: backward, step, save and load of one model and its optimizer."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from rlhf import distributed
from rlhf.config import Device, LaunchConfig, ModelConfig, OptimConfig, ZeroConfig
from rlhf.errors import UserError

# The longest sequence, in tokens, up to which `with_attention` picks plain matrix products.
EAGER_TOKENS = 1024


class NonFiniteLossError(RuntimeError):
    """A loss or a gradient is not finite; the weights are those of before the step."""


def pick_device(config: LaunchConfig) -> torch.device:
    """launch.device as torch knows it; auto is CUDA where there is one."""
    return torch.device("cuda" if config.device != Device.cpu and torch.cuda.is_available() else "cpu")


def with_attention(config: ModelConfig, device: torch.device, longest: int) -> ModelConfig:
    """The model's config with an attention chosen where the user left that to us; `longest` sequence in tokens.

    On a CPU plain matrix products train short sequences up to twice as fast as the fused kernel; their memory grows
    with the square of the length, so long ones stay with Transformers' choice.
    """
    if config.attn_implementation is None and device.type == "cpu" and longest <= EAGER_TOKENS:
        return dataclasses.replace(config, attn_implementation="eager")
    return config


def lr_factor(step: int, total_steps: int, *, min_lr_ratio: float, warmup_steps: int, warmup_from: float) -> float:
    """Share of the peak learning rate at `step` (from 0): linear from `warmup_from`, then cosine to `min_lr_ratio`.

    The cosine starts when the warm-up ends and reaches min_lr_ratio at the last step; min_lr_ratio 1 stays at 1.
    """
    if step < warmup_steps:
        return warmup_from + (1 - warmup_from) * step / warmup_steps
    done = (step - warmup_steps) / max(total_steps - 1 - warmup_steps, 1)
    return min_lr_ratio + (1 - min_lr_ratio) * 0.5 * (1 + math.cos(math.pi * min(done, 1.0)))


class Engine:
    """A model with AdamW in float32, whole on every rank; `step` sums the gradients over ranks.

    Weights that are not float32 get float32 master copies: at a learning rate of 1e-6, bfloat16 would round most
    updates away. Weight decay falls on matrices alone, not on biases, norms and other vectors.
    Raises UserError for settings that need DeepSpeed.
    """

    def __init__(self, model: nn.Module, optim: OptimConfig, zero: ZeroConfig) -> None:
        if zero.stage > 0:
            raise UserError(
                f"zero.stage={zero.stage} shards over processes, which this stage does not do yet; use zero=none."
            )
        self.model = model
        self.optim = optim
        self.names, self.parameters = zip(
            *((n, p) for n, p in model.named_parameters() if p.requires_grad), strict=True
        )
        if any(p.dtype == torch.float16 for p in self.parameters):
            raise UserError("model.dtype=float16 would need loss scaling to train; use bfloat16 or float32.")
        self.masters: list[Tensor] = [
            p if p.dtype == torch.float32 else nn.Parameter(p.detach().float()) for p in self.parameters
        ]
        self.optimizer = torch.optim.AdamW(
            [
                {"params": [p for p in self.masters if p.ndim >= 2], "weight_decay": optim.weight_decay},
                {"params": [p for p in self.masters if p.ndim < 2], "weight_decay": 0.0},
            ],
            lr=optim.lr,
            betas=(optim.betas[0], optim.betas[1]),
            eps=optim.eps,
            fused=True,
        )

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

    def save(self, folder: Path, name: str) -> None:
        """Write what is trained and the optimizer as `name`.safetensors and `name`_optimizer.pt in `folder`."""
        save_file(
            dict(zip(self.names, (p.detach() for p in self.masters), strict=True)), folder / f"{name}.safetensors"
        )
        torch.save(self.optimizer.state_dict(), folder / f"{name}_optimizer.pt")

    @torch.no_grad()
    def load(self, folder: Path, name: str) -> None:
        """Go on exactly where `save` was called."""
        weights = load_file(folder / f"{name}.safetensors")
        for key, parameter, master in zip(self.names, self.parameters, self.masters, strict=True):
            master.copy_(weights[key])
            if master is not parameter:
                parameter.copy_(master)
        state: dict[str, Any] = torch.load(folder / f"{name}_optimizer.pt", weights_only=True)
        self.optimizer.load_state_dict(state)

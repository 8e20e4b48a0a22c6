"""DeepSpeed's ZeRO: its settings, shards made whole and put back, and the engine PPO trains with in place of `Engine`.

ZeRO (arXiv:1910.02054) shards over processes what data parallelism repeats on each: stage 1 the optimizer's state,
stage 2 gradients as well, stage 3 weights as well. DeepSpeed is imported where a setting asks for it.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import logging
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from rlhf.config import OptimConfig, ZeroConfig
from rlhf.models.sharding import engines, own_part, part_of
from rlhf.runtime import distributed
from rlhf.training.engine import MOMENTS, EngineState, NonFiniteLossError, adamw

# Numbers in one message. DeepSpeed's half a billion would be a buffer of 2 GB for each model that is trained.
_BUCKET_NUMBERS = 50_000_000
# Weights of no more numbers than this stay whole under stage 3: norms and biases, which would be many small messages.
PERSISTENT_NUMBERS = 10_000


def import_deepspeed() -> Any:
    """DeepSpeed, without what it would compile for CPUs on first use.

    A machine may have no compiler, and ranks that are killed meanwhile leave a lock that all later ones wait for.
    """
    import deepspeed

    deepspeed.ops.__compatible_ops__["deepspeed_shm_comm"] = False  # collectives in shared memory; gloo has them too
    return deepspeed


def optimization(zero: ZeroConfig) -> dict[str, Any]:
    """DeepSpeed's `zero_optimization` settings."""
    settings: dict[str, Any] = {"stage": zero.stage, "reduce_bucket_size": _BUCKET_NUMBERS}
    if zero.offload:
        settings["offload_optimizer"] = {"device": "cpu"}
        if zero.stage == 3:
            settings["offload_param"] = {"device": "cpu"}
    if zero.stage == 3:
        settings["stage3_param_persistence_threshold"] = PERSISTENT_NUMBERS
        settings["stage3_gather_16bit_weights_on_model_save"] = True
    return settings


# Checkpoints of Trainers, which DeepSpeed writes in a part for each rank


def ranks_of(checkpoint: Path) -> int:
    """How many ranks wrote a Trainer's checkpoint with DeepSpeed; 0 where it was written without."""
    return len(list(checkpoint.glob("global_step*/*optim_states.pt")))


def universal(checkpoint: Path, target: Path) -> None:
    """A copy of a Trainer's checkpoint that any number of ranks can load with checkpoint.load_universal."""
    import_deepspeed()
    from deepspeed.checkpoint.ds_to_universal import main

    (state,) = checkpoint.glob("global_step*")
    shutil.rmtree(target, ignore_errors=True)
    shutil.copytree(checkpoint, target, ignore=shutil.ignore_patterns("global_step*"))
    settings = argparse.Namespace(
        input_folder=str(state),
        output_folder=str(target / state.name),
        num_extract_workers=1,
        num_merge_workers=1,
        keep_temp_folder=False,
        strict=True,
        inject_missing_state=True,
    )
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):  # it talks, and has bars
        main(settings)
    (target / "latest_universal").write_text(state.name, encoding="utf-8")


def mend_universal(engine: Any, weight_decays: Sequence[float]) -> None:
    """What DeepSpeed 0.19 gets wrong of a universal checkpoint under stage 3; nothing under others.

    All groups of parameters share one tensor of Adam's steps, which each of them then counts up, and all have the first
    one's weight decay. weight_decays: the groups' own.
    """
    sharded = engine.optimizer
    if not hasattr(sharded, "fp32_partitioned_groups_flat"):
        return
    for master in sharded.fp32_partitioned_groups_flat:
        state = sharded.optimizer.state[master]
        state["step"] = state["step"].clone()
    for group, weight_decay in zip(sharded.param_groups, weight_decays, strict=False):
        group["weight_decay"] = weight_decay


# Engines


def shard_frozen(model: Any, zero: ZeroConfig) -> None:
    """Under stage 3, leave each rank its part of a model that is not trained; else nothing."""
    if zero.stage == 3:
        _initialize(model, zero)


class ZeroEngine:
    """What `rlhf.training.engine.Engine` does, by DeepSpeed: AdamW on float32 masters, sharded.

    Gradients are summed over ranks. All ranks must call `backward` equally often between two steps, and once at least.
    """

    even_passes = True

    def __init__(self, model: nn.Module, optim: OptimConfig, zero: ZeroConfig) -> None:
        self.model = model
        self.optim = optim
        self._stage = zero.stage
        self._trained = {name: p for name, p in model.named_parameters() if p.requires_grad}
        self._engine = _initialize(model, zero, adamw(list(self._trained.values()), optim), optim.max_grad_norm)
        self._sharded = self._engine.optimizer

    @property
    def lr(self) -> float:
        return float(self._sharded.param_groups[0]["lr"])

    def set_lr_factor(self, factor: float) -> None:
        """Make the learning rate this share of optim.lr."""
        for group in self._sharded.param_groups:
            group["lr"] = self.optim.lr * factor

    def backward(self, loss: Tensor) -> None:
        """Add the loss's gradients to those of this step."""
        # As the forward pass of DeepSpeed's engine does, which ours go round: one more micro-batch of the same step.
        self._sharded.clear_backward_seen_flag()
        # It averages over ranks; the loss is this rank's part of a sum.
        self._engine.backward(loss * distributed.world_size(), scale_wrt_gas=False)

    def step(self) -> float:
        """Clip the gradients to optim.max_grad_norm, move the weights, clear the gradients.

        Returns the norm before clipping. Raises NonFiniteLossError, before anything moves, when it is not finite.
        """
        self._engine.step()
        if self._sharded.overflow:
            raise NonFiniteLossError(f"The gradient norm is not finite; lower the learning rate (now {self.lr:.3g}).")
        return float(self._engine.get_global_grad_norm())

    def clear(self) -> None:
        """Forget this step's gradients."""
        self._sharded.zero_grad()
        if self._stage < 3:  # as its own step does with gradients that are not finite
            self._sharded.micro_step_id = -1
            for kept in (self._sharded.averaged_gradients, self._sharded.all_grad_tensors):
                for group in kept:
                    kept[group] = None

    def state(self) -> EngineState:
        """As `Engine.state`, on the first rank; empty on the others. Every rank has to ask."""
        from deepspeed.utils import safe_get_full_fp32_param, safe_get_full_optimizer_state

        state = EngineState({}, {})
        steps = self._steps()
        self._link_moments()
        for name, parameter in self._trained.items():
            # A weight at a time: no rank but the first holds more than one that is whole.
            weight = safe_get_full_fp32_param(parameter)
            moments = {m: safe_get_full_optimizer_state(parameter, m) for m in MOMENTS} if steps is not None else {}
            if distributed.is_main_process():
                state.weights[name] = weight.cpu().view(_shape(parameter)).clone()
                if steps is not None:
                    state.moments[name] = {m: t.cpu().view(_shape(parameter)).clone() for m, t in moments.items()}
                    state.moments[name]["step"] = steps.cpu().clone()
        return state

    @torch.no_grad()
    def load(self, state: EngineState) -> None:
        """Go on exactly where `state` was, of however many ranks and whatever stage."""
        from deepspeed.utils import (
            safe_set_full_fp32_param,
            safe_set_full_optimizer_state,
            safe_set_local_fp32_param,
            safe_set_local_optimizer_state,
        )

        if state.moments:
            self._begin_moments(next(iter(state.moments.values()))["step"])
        set_weight = safe_set_local_fp32_param if self._stage == 3 else safe_set_full_fp32_param
        set_moment = safe_set_local_optimizer_state if self._stage == 3 else safe_set_full_optimizer_state
        for name, parameter in self._trained.items():
            weight = state.weights[name].to(own_part(parameter).device)
            set_weight(parameter, part_of(weight, parameter))
            own_part(parameter).copy_(part_of(weight, parameter))
            for moment in MOMENTS if state.moments else ():
                value = state.moments[name][moment].to(weight.device)
                set_moment(parameter, part_of(value, parameter), moment)

    def _masters(self) -> list[Tensor]:
        """This rank's part of the float32 weights, a flat tensor for each group of parameters."""
        sharded = self._sharded
        masters: list[Tensor] = (
            sharded.fp32_partitioned_groups_flat if self._stage == 3 else sharded.single_partition_of_fp32_groups
        )
        return masters

    def _steps(self) -> Tensor | None:
        """How many steps Adam has made, a tensor of one number; None before the first."""
        steps: Tensor | None = self._sharded.optimizer.state.get(self._masters()[0], {}).get("step")
        return steps

    def _begin_moments(self, steps: Tensor) -> None:
        """What Adam makes at its first step, which may be yet to come, so that there is something to fill."""
        for master in self._masters():
            self._sharded.optimizer.state[master] = {
                "step": steps.clone().to(master.device),
                **{moment: torch.zeros_like(master) for moment in MOMENTS},
            }
        self._link_moments()

    def _link_moments(self) -> None:
        """Let DeepSpeed find each weight's moments: it looks once, when the first of its groups alone has some."""
        if self._stage < 3:
            self._sharded._hp_optimizer_states_linked = False
            self._sharded._lazy_init_hp_params_optimizer_state()


def _shape(parameter: Any) -> torch.Size:
    shape: torch.Size = getattr(parameter, "ds_shape", parameter.shape)
    return shape


def _initialize(
    model: nn.Module, zero: ZeroConfig, optimizer: torch.optim.Optimizer | None = None, max_grad_norm: float = 0.0
) -> Any:
    deepspeed = import_deepspeed()
    logging.getLogger("DeepSpeed").setLevel(logging.WARNING)
    engine, *_ = deepspeed.initialize(
        model=model,
        optimizer=optimizer,
        config={
            "train_micro_batch_size_per_gpu": 1,  # asked for, and read by nothing that we use
            # We say where a step ends, and have as many micro-batches as lengths ask for.
            "managed_gradient_accumulation": False,
            "gradient_clipping": max_grad_norm,
            "bf16": {"enabled": next(model.parameters()).dtype == torch.bfloat16},
            "zero_optimization": optimization(zero),
            "zero_allow_untested_optimizer": True,
            "zero_force_ds_cpu_optimizer": False,
            "steps_per_print": None,
        },
    )
    engines[model] = engine
    return engine

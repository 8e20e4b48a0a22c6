"""What SFT and reward training share: Trainer arguments, batches by length, checkpoints that are whole, safe losses.

Both run on the Trainer family; everything it would print, upload or write outside the stage's folder is turned off.
"""

from __future__ import annotations

import contextlib
import math
import random
import shutil
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlhf import distributed, models
from rlhf.config import Config, Device, DType, OptimConfig, ZeroConfig
from rlhf.engine import pick_device, with_attention
from rlhf.errors import UserError

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext

COMPLETE = "COMPLETE"
SAVE_EVERY_S = 600.0  # an interrupted stage loses no more than this
_BATCHES_TO_SORT = 50  # rows are sorted by length among this many random batches


def training_arguments(
    config: Config,
    optim: OptimConfig,
    *,
    stage: str,
    checkpoints_dir: Path,
    epochs: float,
    batch_size: int,
    micro_batch_size: int,
    rows: int,
    **overrides: Any,
) -> dict[str, Any]:
    """Keyword arguments for TrainingArguments or a subclass of it.

    micro_batch_size is the most a device takes at once; batch_size is split over devices first, then over
    accumulation steps. Raises UserError when that does not work out.
    """
    world_size = distributed.world_size()
    if batch_size % world_size:
        raise UserError(
            f"{stage}.batch_size={batch_size} does not split over {world_size} processes; "
            f"set {stage}.batch_size to a multiple of {world_size}."
        )
    micro = min(micro_batch_size, batch_size // world_size)
    if (batch_size // world_size) % micro:
        raise UserError(
            f"{stage}.batch_size={batch_size} over {world_size} processes does not split into micro-batches of "
            f"{micro}; change {stage}.micro_batch_size_per_device."
        )
    on_cpu = config.launch.device == Device.cpu or not torch.cuda.is_available()
    if config.launch.device == Device.cuda and on_cpu:
        raise UserError("launch.device=cuda, but there is no CUDA device; use launch.device=auto or cpu.")
    if config.model.dtype == DType.float16 and on_cpu:
        raise UserError("model.dtype=float16 trains on CUDA devices alone; use float32 or bfloat16.")
    return {
        "output_dir": str(checkpoints_dir),
        "num_train_epochs": epochs,
        "per_device_train_batch_size": micro,
        "per_device_eval_batch_size": micro,
        "gradient_accumulation_steps": batch_size // world_size // micro,
        "learning_rate": optim.lr,
        "adam_beta1": optim.betas[0],
        "adam_beta2": optim.betas[1],
        "adam_epsilon": optim.eps,
        "weight_decay": optim.weight_decay,
        "max_grad_norm": optim.max_grad_norm,
        "lr_scheduler_type": "cosine_with_min_lr",
        "lr_scheduler_kwargs": {"min_lr_rate": optim.min_lr_ratio},
        "warmup_steps": math.ceil(optim.warmup_ratio * epochs * math.ceil(rows / batch_size)),
        "bf16": config.model.dtype == DType.bfloat16,
        "fp16": config.model.dtype == DType.float16,
        "gradient_checkpointing": config.model.gradient_checkpointing,
        "seed": config.seed,
        "use_cpu": on_cpu,
        "dataloader_pin_memory": not on_cpu,
        "dataloader_num_workers": 0,
        "ddp_backend": "gloo" if on_cpu and world_size > 1 else None,
        "ddp_find_unused_parameters": False if world_size > 1 else None,
        "deepspeed": deepspeed_config(config.zero),
        "logging_steps": 1,
        "logging_nan_inf_filter": False,
        "save_total_limit": 2,
        "remove_unused_columns": False,
        "disable_tqdm": True,
        "report_to": "none",
        "push_to_hub": False,
        **overrides,
    }


def deepspeed_config(zero: ZeroConfig) -> dict[str, Any] | None:
    """DeepSpeed's settings for a Trainer, which fills in the "auto" ones; None trains without DeepSpeed."""
    if zero.stage == 0:
        return None
    settings: dict[str, Any] = {"stage": zero.stage}
    if zero.offload:
        settings["offload_optimizer"] = {"device": "cpu"}
        if zero.stage == 3:
            settings["offload_param"] = {"device": "cpu"}
    if zero.stage == 3:
        settings["stage3_gather_16bit_weights_on_model_save"] = True
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": settings,
        # torch's AdamW: DeepSpeed's own compiles C++ on first use, and is another optimizer.
        "zero_allow_untested_optimizer": True,
        "zero_force_ds_cpu_optimizer": False,
    }


def training_dtype(config: Config) -> torch.dtype | None:
    """What to load weights in: float32 masters under mixed precision; None leaves model.dtype for frozen LoRA bases."""
    return None if config.model.lora.r > 0 else torch.float32


def choose_attention(model: Any, config: Config, longest: int) -> None:
    """Give the model the attention that suits rows of at most `longest` tokens, where the user left that to us."""
    chosen = with_attention(config.model, pick_device(config.launch), longest).attn_implementation
    if chosen != config.model.attn_implementation:
        model.set_attn_implementation(chosen)


@contextlib.contextmanager
def gathered(model: Any) -> Iterator[None]:
    """Inside, every parameter is whole on every rank, as sampling needs; only ZeRO stage 3 makes a difference."""
    parameters = [p for p in model.parameters() if hasattr(p, "ds_id")]
    if not parameters:
        yield
        return
    import deepspeed

    with deepspeed.zero.GatheredParameters(parameters):
        yield


def whole_state_dict(trainer: Trainer) -> dict[str, Tensor]:
    """The trained weights under a plain model's names, adapters merged, on the CPU, whole on every rank."""
    with gathered(trainer.model):
        return {name: tensor.detach().cpu().clone() for name, tensor in models.merged_state_dict(trainer.model).items()}


class BucketSampler(Sampler[int]):
    """Row indices such that batches hold rows of like length, in random order, new each epoch.

    Rows are shuffled, sorted by length within stretches of 50 batches, cut into batches, and the batches shuffled: no
    long stretch of training sees only short rows. A function of seed and epoch alone, so that a resumed run repeats it.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int, epoch: Callable[[], float]) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}:{math.floor(self._epoch() + 1e-6)}")
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        stretch = self._batch_size * _BATCHES_TO_SORT
        batches = []
        for start in range(0, len(order), stretch):
            rows = sorted(order[start : start + stretch], key=lambda row: self._lengths[row])
            batches += [rows[i : i + self._batch_size] for i in range(0, len(rows), self._batch_size)]
        # A short batch anywhere but at the end would shift every later batch across its neighbours' lengths.
        short = [batch for batch in batches if len(batch) < self._batch_size]
        whole = [batch for batch in batches if len(batch) == self._batch_size]
        rng.shuffle(whole)
        return iter([row for batch in whole + short for row in batch])


class StageTrainer(Trainer):
    """Mixin before a Trainer class: batches by length, no loss that is not finite, no model card.

    `train_lengths` is set by the subclass before training: the length of each training row, in tokens.
    """

    train_lengths: Sequence[int]
    stage: str

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # All micro-batches of all ranks that make up one step are neighbours in the order.
        args = self.args
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        return BucketSampler(self.train_lengths, step, args.seed, lambda: self.state.epoch or 0.0)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        loss = super().training_step(*args, **kwargs)
        if not torch.isfinite(loss):
            raise UserError(
                f"The {self.stage} loss is {loss.item()} at step {self.state.global_step + 1}; nothing was updated. "
                f"Lower {self.stage}.optim.lr, or set model.dtype=float32."
            )
        return loss

    def create_model_card(self, *args: Any, **kwargs: Any) -> None:
        """None: the manifest says more than a card made from a template."""

    @property
    def last_loss(self) -> float:
        """The training loss of the last step; NaN before the first."""
        return next((entry["loss"] for entry in reversed(self.state.log_history) if "loss" in entry), float("nan"))

    def reduced_sum(self, values: Sequence[float]) -> list[float]:
        """Each value summed over all ranks."""
        total = self.accelerator.reduce(torch.tensor(values, dtype=torch.float64, device=self.args.device), "sum")
        return [float(x) for x in total]


class CheckpointCallback(TrainerCallback):
    """Marks a checkpoint as whole once all of it is on disk, and asks for one when the last is long ago."""

    def __init__(self) -> None:
        self._last_save_s = time.monotonic()

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        due = time.monotonic() - self._last_save_s > SAVE_EVERY_S
        if args.world_size > 1:
            if state.global_step % 20:
                return
            due = _from_rank_0(due, args)  # clocks differ, and all ranks must save at the same step
        if due:
            control.should_save = True

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last_save_s = time.monotonic()
        if args.should_save:
            folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
            if folder.is_dir():
                (folder / COMPLETE).touch()


def _from_rank_0(flag: bool, args: TrainingArguments) -> bool:
    tensor = torch.tensor([int(flag)], device=args.device)
    torch.distributed.broadcast(tensor, src=0)
    return bool(tensor.item())


def latest_checkpoint(checkpoints_dir: Path) -> tuple[int, Path] | None:
    """The newest whole checkpoint and its step; None when there is none."""
    found = [
        (int(folder.name.rsplit("-", 1)[1]), folder)
        for folder in checkpoints_dir.glob(f"{PREFIX_CHECKPOINT_DIR}-*")
        if (folder / COMPLETE).exists()
    ]
    return max(found, default=None)


def train(trainer: Trainer, context: StageContext) -> None:
    """Trains from the newest whole checkpoint when the stage resumes, else from the start.

    Half-written checkpoints go, and what was logged after the checkpoint is forgotten.
    """
    checkpoints = context.folder.checkpoints_dir
    found = latest_checkpoint(checkpoints) if context.resume else None
    if trainer.args.should_save:
        for folder in checkpoints.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
            if found is None or not (folder / COMPLETE).exists():
                shutil.rmtree(folder)
    context.tracker.rewind(found[0] if found is not None else -1)
    trainer.add_callback(CheckpointCallback())
    with models.quiet_transformers():
        trainer.train(resume_from_checkpoint=str(found[1]) if found is not None else None)

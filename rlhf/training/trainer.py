"""What SFT and reward training share: Trainer arguments, batches by length, checkpoints that are whole, safe losses.

Both run on the Trainer family; everything it would print, upload or write outside the stage's folder is turned off.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.utils.data import DataLoader, Sampler
from transformers import Trainer, TrainerCallback, TrainerControl, TrainerState, TrainingArguments
from transformers.integrations.deepspeed import unset_hf_deepspeed_config
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from rlhf.config import Config, Device, DType, OptimConfig, ZeroConfig
from rlhf.data.encoding import IGNORED
from rlhf.errors import UserError
from rlhf.models.attention import with_attention
from rlhf.models.load import quiet_transformers
from rlhf.models.lora import merged_state_dict
from rlhf.models.sharding import gathered, remember
from rlhf.runtime import checkpoints, distributed
from rlhf.runtime.folder import NOT_FINITE
from rlhf.training import stopping
from rlhf.training.engine import pick_device
from rlhf.training.rows import BucketSampler, FilledRows
from rlhf.training.zero import import_deepspeed, mend_universal, optimization, ranks_of, universal

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


_UNIVERSAL = "universal"  # beside the checkpoints, while another number of ranks goes on from one
_LOGGED = "logged.json"  # in a checkpoint: how many lines were logged before it


def training_arguments(
    config: Config,
    optim: OptimConfig,
    *,
    stage: str,
    checkpoints_dir: Path,
    epochs: float,
    batch_size: int,
    micro_batch_size: int,
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
        # Below 1 it is a share, of the steps that there are: packing makes few rows of many.
        "warmup_steps": optim.warmup_ratio,
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
        "save_total_limit": config.run.keep_checkpoints,
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
    import_deepspeed()
    return {
        "train_micro_batch_size_per_gpu": "auto",
        "gradient_accumulation_steps": "auto",
        "gradient_clipping": "auto",
        "bf16": {"enabled": "auto"},
        "fp16": {"enabled": "auto"},
        "zero_optimization": optimization(zero),
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


def whole_state_dict(trainer: Trainer) -> dict[str, Tensor]:
    """The trained weights under a plain model's names, adapters merged, on the CPU, whole on every rank."""
    with gathered(trainer.model):
        return {name: tensor.detach().cpu().clone() for name, tensor in merged_state_dict(trainer.model).items()}


class StageTrainer(Trainer):
    """Mixin before a Trainer class: batches by length, no loss that is not finite, no model card.

    `train_lengths` is set by the subclass before training: the length of each training row, in tokens.
    """

    train_lengths: Sequence[int]
    stage: str
    _suspect: tuple[float, dict[str, Any]] | None = None  # loss and inputs of a step's first, or its first bad, part

    def _get_train_sampler(self, train_dataset: Any = None) -> Sampler[int]:
        # All micro-batches of all ranks that make up one step are neighbours in the order.
        args = self.args
        step = args.per_device_train_batch_size * args.gradient_accumulation_steps * args.world_size
        filled = args.world_size > 1
        return BucketSampler(self.train_lengths, step, args.seed, lambda: self.state.epoch or 0.0, filled=filled)

    def get_train_dataloader(self) -> DataLoader[Any]:
        rows: Any = self.train_dataset
        if self.args.world_size > 1:
            self.train_dataset = FilledRows(rows, self.blank(rows[0]))
        try:
            return super().get_train_dataloader()
        finally:
            self.train_dataset = rows

    def blank(self, row: Any) -> Any:
        """A row like this one, that adds nothing to a loss or to a count."""
        return {**row, "labels": [IGNORED] * len(row["labels"])}

    def training_step(self, model: Any, inputs: dict[str, Any], *args: Any, **kwargs: Any) -> Tensor:
        loss: Tensor = super().training_step(model, inputs, *args, **kwargs)
        if self._suspect is None or math.isfinite(self._suspect[0]):
            self._suspect = (loss.item(), inputs)
        return loss

    def _get_grad_norm(self, *args: Any, **kwargs: Any) -> Any:
        """Refuses to step where the norm is not finite: it is over all ranks, so that all of them refuse."""
        norm = super()._get_grad_norm(*args, **kwargs)
        suspect, self._suspect = self._suspect, None
        assert suspect is not None, "a step has a micro-batch"
        loss, inputs = suspect
        # In float16 gradients overflow now and then, and the loss scaler leaves such a step out.
        if norm is None or math.isfinite(norm) or (self.args.fp16 and math.isfinite(loss)):
            return norm
        step = self.state.global_step + 1
        folder = Path(str(self.args.output_dir)).parent / NOT_FINITE
        folder.mkdir(exist_ok=True)
        kept = folder / f"step-{step}-rank-{distributed.rank()}.safetensors"
        save_file({name: t.cpu().contiguous() for name, t in inputs.items() if isinstance(t, Tensor)}, kept)
        raise UserError(
            f"The gradient of {self.stage} is not finite at step {step} (the loss of the batch in {kept} is {loss}); "
            f"nothing was updated. Lower {self.stage}.optim.lr, or set model.dtype=float32."
        )

    def _load_best_model(self) -> None:
        """Transformers', of a checkpoint that another number of ranks may have written."""
        best = self.state.best_model_checkpoint
        if not self.is_deepspeed_enabled or best is None:
            super()._load_best_model()
            return
        self.state.best_model_checkpoint = str(_for_these_ranks(Path(best), self))
        super()._load_best_model()
        self.state.best_model_checkpoint = best
        _load_universal(self, False)

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


class _ZeroCallback(TrainerCallback):
    """Tells `gathered` which engine shards the model, once there is one."""

    def __init__(self, trainer: Trainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        if self._trainer.is_deepspeed_enabled:
            model: Any = self._trainer.model
            remember(model, self._trainer.deepspeed)
            engine: Any = self._trainer.deepspeed
            if engine.load_universal_checkpoint():
                mend_universal(engine, (self._trainer.args.weight_decay, 0.0))
                _load_universal(self._trainer, False)  # what was to be loaded is


class CheckpointCallback(TrainerCallback):
    """Seals a checkpoint once all of it is on disk, and asks for one when the last is long ago or a signal came.

    A checkpoint after the last step of an epoch waits for the evaluation there: a resumed run begins the next epoch,
    and would never make it.
    """

    def __init__(self, context: StageContext) -> None:
        self._tracker = context.tracker
        self._every_s = 60 * context.config.run.save_minutes
        self._last_save_s = time.monotonic()
        self._save_after_epoch = False
        self.stopped_after: int | None = None  # the step, where training ended because of a signal

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        # Clocks differ, and all ranks must save and stop at the same step.
        wishes = distributed.from_every_rank((time.monotonic() - self._last_save_s > self._every_s, stopping.wanted()))
        if any(due for due, _ in wishes):
            control.should_save = True
        if any(stop for _, stop in wishes) and state.global_step < state.max_steps:
            control.should_save = control.should_training_stop = True
            self.stopped_after = state.global_step
        if control.should_save and _epoch_ends(state):
            control.should_save, self._save_after_epoch = False, True

    def on_epoch_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not _epoch_ends(state):  # training was stopped, and the epoch goes on another time
            control.should_log = control.should_evaluate = control.should_save = False
        elif self._save_after_epoch:
            control.should_save, self._save_after_epoch = True, False

    def on_save(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._last_save_s = time.monotonic()
        distributed.barrier()  # every rank has written its part
        folder = Path(str(args.output_dir)) / f"{PREFIX_CHECKPOINT_DIR}-{state.global_step}"
        if args.should_save and folder.is_dir():
            (folder / _LOGGED).write_text(json.dumps(self._tracker.position()), encoding="utf-8")
            checkpoints.seal(folder)
        distributed.barrier()


def _epoch_ends(state: TrainerState) -> bool:
    """Whether the last step was an epoch's last one."""
    epoch = state.epoch or 0.0
    return abs(epoch - round(epoch)) < 1e-6


def train(trainer: Trainer, context: StageContext) -> None:
    """Trains from the newest undamaged checkpoint when the stage resumes, else from the start.

    Newer ones go, and what was logged after the checkpoint is forgotten. Raises Stopped after a signal.
    """
    folder = context.folder.checkpoints_dir
    found = None
    if context.resume:
        found = distributed.from_main(lambda: checkpoints.newest(folder, PREFIX_CHECKPOINT_DIR))
    if trainer.args.should_save:
        for step, left in checkpoints.numbered(folder, PREFIX_CHECKPOINT_DIR):
            if found is None or step > found[0]:
                shutil.rmtree(left)
    distributed.barrier()
    if found is None:
        context.tracker.rewind(-1)
    else:
        context.tracker.rewind(found[0], json.loads((found[1] / _LOGGED).read_text(encoding="utf-8")))
    trainer.add_callback(_ZeroCallback(trainer))
    callback = CheckpointCallback(context)
    trainer.add_callback(callback)
    start = None if found is None else _for_these_ranks(found[1], trainer)
    with quiet_transformers(), stopping.between_steps():
        trainer.train(resume_from_checkpoint=None if start is None else str(start))
    shutil.rmtree(folder / _UNIVERSAL, ignore_errors=True)
    if trainer.is_deepspeed_enabled:
        unset_hf_deepspeed_config()  # else models that are loaded from now on would be sharded as they load
    if callback.stopped_after is not None:
        raise stopping.Stopped(callback.stopped_after)


def _for_these_ranks(checkpoint: Path, trainer: Trainer) -> Path:
    """The checkpoint as this many ranks can load it. Raises UserError where sharding was switched on or off since."""
    wrote, stage = ranks_of(checkpoint), trainer.is_deepspeed_enabled
    if bool(wrote) != stage:
        raise UserError(
            f"{checkpoint} was written with {'zero=1 or more' if wrote else 'zero=none'}; go on with that, or move the "
            "folder away to begin anew."
        )
    if not stage or wrote == trainer.args.world_size:
        return checkpoint
    target = checkpoint.parent / _UNIVERSAL
    distributed.from_main(lambda: universal(checkpoint, target))
    _load_universal(trainer, True)
    return target


def _load_universal(trainer: Trainer, flag: bool) -> None:
    """Whether DeepSpeed's next load is of what `universal` wrote, of an engine that is there or is yet to be made."""
    plugin: Any = trainer.accelerator.state.deepspeed_plugin
    for settings in (plugin.deepspeed_config, plugin.hf_ds_config.config):
        settings["checkpoint"] = {"load_universal": flag}
    if trainer.deepspeed is not None:
        trainer.deepspeed._config.load_universal_checkpoint = flag

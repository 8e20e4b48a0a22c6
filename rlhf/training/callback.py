"""Hugging Face's Trainer logs into our tracker, under our metric names and with our progress bar."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import (
    PrinterCallback,
    ProgressCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from rlhf.runtime.progress import Progress, progress
from rlhf.training.tracking import Tracker

_NAMES = {
    "loss": "train/loss",
    "learning_rate": "optim/lr",
    "grad_norm": "optim/grad_norm",
    "epoch": "train/epoch",
    "train_runtime": "time/train_s",
    "eval_runtime": "time/eval_s",
}
# What follows from time and sizes; and the mean over all training, which of several ranks is partly the first one's.
_DROPPED_ENDINGS = ("samples_per_second", "steps_per_second", "total_flos", "train_loss")


def metric_names(logs: Mapping[str, Any]) -> dict[str, float]:
    """A Trainer's log under our names: loss -> train/loss, eval_accuracy -> eval/accuracy, entropy -> train/entropy."""
    renamed = {}
    for name, value in logs.items():
        if name.endswith(_DROPPED_ENDINGS) or not isinstance(value, int | float):
            continue
        if name in _NAMES:
            renamed[_NAMES[name]] = value
        elif "/" in name:
            renamed[name] = value
        else:
            area, _, quantity = name.partition("_")
            renamed[f"{area}/{quantity}" if area in ("train", "eval") and quantity else f"train/{name}"] = value
    return renamed


class TrackerCallback(TrainerCallback):
    """Sends what a Trainer logs to `tracker` at its global step, and draws our bar. `install` puts it in place."""

    def __init__(self, tracker: Tracker, description: str, *, enabled: bool) -> None:
        self._tracker = tracker
        self._description = description
        self._enabled = enabled
        self._train_bar: Progress[int] | None = None
        self._eval_bar: Progress[int] | None = None
        self._shown: dict[str, float] = {}

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._train_bar = progress(state.max_steps, self._description, enabled=self._enabled, initial=state.global_step)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        if self._train_bar is not None:
            self._train_bar.update(state.global_step - self._train_bar.count)

    def on_prediction_step(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        eval_dataloader: Any = None,
        **kwargs: Any,
    ) -> None:
        if self._eval_bar is None:
            total = len(eval_dataloader) if hasattr(eval_dataloader, "__len__") else 0
            description = f"{self._description}, held out"
            self._eval_bar = progress(total, description, "batch", enabled=self._enabled, leave=False)
        self._eval_bar.update()

    def on_evaluate(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        self._close_eval_bar()

    def on_predict(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, metrics: Any, **kwargs: Any
    ) -> None:
        self._close_eval_bar()

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **kwargs: Any,
    ) -> None:
        metrics = metric_names(logs or {})
        if not metrics:
            return
        self._tracker.log(state.global_step, metrics)
        shown = ("train/loss", "eval/loss", "eval/accuracy", "optim/lr")
        self._shown |= {name.replace("eval/", "eval_"): metrics[name] for name in shown if name in metrics}
        if self._train_bar is not None:
            self._train_bar.show(self._shown)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._train_bar is not None:
            self._train_bar.close()

    def _close_eval_bar(self) -> None:
        if self._eval_bar is not None:
            self._eval_bar.close()
            self._eval_bar = None


def install(trainer: Trainer, tracker: Tracker, description: str, *, enabled: bool) -> None:
    """Replaces the Trainer's own printer and bar by ours. Set `report_to=[]` in its arguments as well."""
    trainer.remove_callback(PrinterCallback)
    trainer.remove_callback(ProgressCallback)
    trainer.add_callback(TrackerCallback(tracker, description, enabled=enabled))

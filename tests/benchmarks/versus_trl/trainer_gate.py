"""A Trainer of either side as a worker: it waits between stretches of steps."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback

from tests.benchmarks.versus_trl.gate import Gate

# Batches of like length differ in cost from each other; eight of them are a fair sample.
STEPS_AN_ITERATION = {"sft": 8, "reward": 4}


class TrainerGate(TrainerCallback):
    """Opens the gate every so many steps; the units are what `count` finds in each batch that is collated."""

    def __init__(self, trainer: Any, count: Callable[[Any], int], gate: Gate, steps: int) -> None:
        self._gate = gate
        self._steps = steps
        self._units = 0
        collate = trainer.data_collator

        def counted(rows: Any) -> Any:
            batch = collate(rows)
            self._units += count(batch)
            return batch

        trainer.data_collator = counted
        trainer.add_callback(self)

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._gate.done()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step % self._steps == 0:
            units, self._units = self._units, 0
            self._gate.done(units)

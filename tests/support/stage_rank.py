"""One rank of a stage on the toy data of its tests: `python -m tests.support.stage_rank PICKLED_ARGUMENTS`."""

from __future__ import annotations

import importlib
import json
import os
import pickle
import signal
import sys
from pathlib import Path

import torch

from rlhf.runtime import distributed
from rlhf.training import stopping, zero
from rlhf.training.torch_settings import prepare_torch, seed_everything

if __name__ == "__main__":
    stage, context, stop_at = pickle.loads(Path(sys.argv[1]).read_bytes())
    zero.PERSISTENT_NUMBERS = 0  # else nothing of a tiny model would be sharded
    prepare_torch(context.config)
    torch.set_num_threads(1)
    seed_everything(context.config.seed)
    distributed.join(context.config.launch.device, alone=context.config.zero.stage > 0)
    log = context.tracker.log

    def log_and_ask_to_stop(step: int, metrics: dict[str, float]) -> None:
        log(step, metrics)
        if step == stop_at and "train/loss" in metrics:
            os.kill(os.getpid(), signal.SIGTERM)

    context.tracker.log = log_and_ask_to_stop
    metrics = {}
    try:
        metrics = importlib.import_module(f"stages.{stage}").run(context)
    except stopping.Stopped:
        assert stop_at is not None
    if distributed.is_main_process():
        rows = [{"step": step, **logged} for step, logged in context.tracker.logged]
        (context.folder.path / "logged.json").write_text(json.dumps({"rows": rows, "metrics": metrics}))

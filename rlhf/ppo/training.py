"""What PPO trains and what a checkpoint holds: engines, the averaged policy, the KL controller and the like."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor

from rlhf.config import Config, Keep, OptimConfig, ZeroConfig
from rlhf.ppo.best import Best
from rlhf.ppo.ema import EMA
from rlhf.ppo.roles import Roles
from rlhf.rl.kl import KLController
from rlhf.rl.moments import RunningMoments
from rlhf.runtime.distributed import barrier, from_main, is_main_process
from rlhf.runtime.folder import StageFolder
from rlhf.runtime.jsonl import json_value
from rlhf.training.context import StageContext
from rlhf.training.engine import Engine, EngineState, Trained, lr_factor
from rlhf.training.zero import ZeroEngine


class Training:
    """Everything that changes from one iteration to the next. All else is a function of seed and iteration."""

    def __init__(self, roles: Roles, config: Config) -> None:
        ppo = config.ppo
        self.config = ppo
        self.iterations = ppo.iterations
        self.policy = _engine(roles.policy, ppo.optim, config.zero)
        self.value_model = None
        if roles.value_model is not None:
            self.value_model = _engine(roles.value_model, ppo.value_optim, config.zero)
        self.ema = EMA(roles.policy, ppo.ema_decay) if ppo.ema_decay > 0 else None
        self.kl = KLController(ppo.kl.coef, ppo.kl.target, ppo.kl.horizon)
        self.score_moments = RunningMoments() if ppo.scale_scores else None
        self.best = Best(roles.policy, ppo.kl.coef) if ppo.keep == Keep.best else None
        self.over_max_kl = False  # the KL budget is spent, and the run is over
        self.metrics: dict[str, float] = {}  # of the last iteration

    def set_learning_rates(self, iteration: int) -> None:
        """Those of `iteration`, counted from 0; ppo.warmup_iterations starts at a tenth, optim.warmup_ratio at 0."""
        for engine in self._engines().values():
            warmup = round(engine.optim.warmup_ratio * self.iterations)
            factor = lr_factor(
                iteration,
                self.iterations,
                min_lr_ratio=engine.optim.min_lr_ratio,
                warmup_steps=self.config.warmup_iterations or warmup,
                warmup_from=0.1 if self.config.warmup_iterations else 0.0,
            )
            engine.set_lr_factor(factor)

    def score_std(self, scores: Tensor) -> float | None:
        """What this batch's scores are divided by: with ppo.scale_scores the deviation of all so far, else None."""
        if self.score_moments is None:
            return None
        self.score_moments.update(scores)
        return self.score_moments.std

    def spent(self, kl: float) -> bool:
        """Whether a measured KL, in nats a response, is over ppo.max_kl."""
        self.over_max_kl = self.config.max_kl is not None and kl > self.config.max_kl
        return self.over_max_kl

    def state_metrics(self) -> dict[str, float]:
        """Learning rates, the KL penalty's weight and, where there is a budget, whether it is spent."""
        names = {"policy": "optim/lr", "value_model": "optim/value_lr"}
        state = {names[role]: engine.lr for role, engine in self._engines().items()}
        state["kl/coef"] = self.kl.coef
        if self.config.max_kl is not None:
            state["objective/over_max_kl"] = float(self.over_max_kl)
        return state

    def _engines(self) -> dict[str, Trained]:
        engines = {"policy": self.policy, "value_model": self.value_model}
        return {role: engine for role, engine in engines.items() if engine is not None}

    @contextmanager
    def saved_policy(self) -> Iterator[None]:
        """Inside, the policy is the one that is saved: the best where that is kept, else as `evaluated_policy`."""
        with self.evaluated_policy() if self.best is None else self.best.applied():
            yield

    @contextmanager
    def evaluated_policy(self) -> Iterator[None]:
        """Inside, the policy is the one that evaluations are of: the average where there is one."""
        if self.ema is None:
            yield
        else:
            with self.ema.applied():
                yield

    def save(self, folder: StageFolder, step: int, *, keep: int) -> None:
        """Write all of it as a checkpoint, which any number of ranks can go on from. Every rank has to ask.

        keep: how many of the newest checkpoints stay.
        """
        engines = {role: engine.state() for role, engine in self._engines().items()}
        weights = {"ema": self.ema, "best": self.best}
        copies = {name: copy.whole() for name, copy in weights.items() if copy is not None}
        state: dict[str, Any] = {"kl": self.kl.state_dict(), "metrics": json_value(self.metrics)}
        if self.best is not None:
            state["best"] = self.best.state_dict()
        if self.score_moments is not None:
            state["score_moments"] = self.score_moments.state_dict()
        if is_main_process():
            with folder.checkpoint(step, keep=keep) as target:
                for role, engine_state in engines.items():
                    engine_state.save(target, role)
                for name, tensors in copies.items():
                    save_file(tensors, target / f"{name}.safetensors")
                (target / "state.json").write_text(json.dumps(state), encoding="utf-8")
        barrier()

    def load(self, folder: Path) -> None:
        """Go on as if `save` had just been called."""
        for role, engine in self._engines().items():
            engine.load(EngineState.load(folder, role))
        if self.ema is not None:
            self.ema.load(folder / "ema.safetensors")
        state = json.loads((folder / "state.json").read_text(encoding="utf-8"))
        if self.best is not None:
            self.best.load(folder / "best.safetensors")
            self.best.load_state_dict(state["best"])
        self.kl.load_state_dict(state["kl"])
        if self.score_moments is not None:
            self.score_moments.load_state_dict(state["score_moments"])
        self.metrics = {name: value for name, value in state["metrics"].items() if value is not None}


def resume(context: StageContext, training: Training) -> int:
    """Load the newest checkpoint where an earlier attempt left one; the iteration to go on with."""
    latest = from_main(context.folder.latest_checkpoint) if context.resume else None
    if latest is None:
        context.tracker.rewind(-1)
        return 0
    step, folder = latest
    training.load(folder)
    context.tracker.rewind(step)
    return training.iterations if training.metrics.get("objective/over_max_kl") else step


def _engine(model: Any, optim: OptimConfig, zero: ZeroConfig) -> Trained:
    return Engine(model, optim) if zero.stage == 0 else ZeroEngine(model, optim, zero)

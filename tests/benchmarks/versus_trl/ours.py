"""Our side: the stages themselves, run with a data source, a tracker and a folder that belong to the benchmark."""

from __future__ import annotations

import dataclasses
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch

from rlhf.config import (
    Config,
    DataConfig,
    DataSourceName,
    Float32Matmul,
    LaunchConfig,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    RewardConfig,
    RolloutConfig,
    SFTConfig,
    TrackerConfig,
)
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role
from rlhf.models.load import load_causal_lm
from rlhf.ppo.rollout import generate
from rlhf.runtime.folder import StageFolder
from rlhf.sft import trainer
from rlhf.training.context import StageContext
from rlhf.training.torch_settings import prepare_torch
from stages import ppo as ppo_stage
from stages import reward as reward_stage
from stages import sft as sft_stage
from tests.benchmarks.versus_trl import workload
from tests.benchmarks.versus_trl.gate import Gate
from tests.benchmarks.versus_trl.trainer_gate import STEPS_AN_ITERATION, TrainerGate
from tests.benchmarks.versus_trl.workload import Job
from tests.support.fakes import ListSource

ENDLESS = 10**6
SFT_MICRO_BATCH = workload.SFT_BATCH // 2  # half the activations at once; the step and its cost are the same


def ppo(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    optim = OptimConfig(lr=workload.LEARNING_RATE, min_lr_ratio=1.0)
    config = _config(
        job,
        ppo=PPOConfig(
            optim=optim,
            value_optim=optim,
            episodes=job.batch * ENDLESS,
            batch_size=job.batch,
            num_minibatches=1,
            epochs=workload.PPO_EPOCHS,
            evaluate_every=0,
            save_every=ENDLESS,
        ),
    )
    prompts = [Demonstration(_prompt(ids, i), "w2") for i, ids in enumerate(workload.prompts(64 * 16))]
    data = ListSource(train_demonstrations=prompts, held_out_demonstrations=prompts[:1])
    parents = {"policy": folder / "policy", "reward_model": folder / "reward_model"}
    gate.done()
    ppo_stage.run(_context(config, parents, data, _IterationTracker(gate)))


def rollout(job: Job, root: Path, gate: Gate) -> None:
    config = _config(job)
    prepare_torch(config)
    attention = dataclasses.replace(config.model, attn_implementation="eager")  # what stages/ppo.py picks here
    policy = load_causal_lm(str(workload.folder_of(root, job) / "policy"), attention)
    gate.done()
    for seed in range(ENDLESS):
        sampled = generate(
            policy,
            workload.prompts(job.batch, seed),
            eos_token_id=workload.END,
            config=config.rollout,
            generator_seed=seed,
        )
        gate.done(sum(map(len, sampled.response_ids)))


def reward(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    config = _config(
        job,
        reward=RewardConfig(
            optim=OptimConfig(lr=workload.LEARNING_RATE),
            epochs=ENDLESS,
            batch_size=workload.REWARD_BATCH,
            micro_batch_size_per_device=workload.REWARD_BATCH,
        ),
    )
    rankings = [
        Ranking(_prompt(prompt, i), tuple(map(workload.text, completions)), tuple(range(len(completions))))
        for i, (prompt, completions) in enumerate(workload.rankings(2048, job.lengths))
    ]
    demonstrations = _demonstrations(8, job)
    data = ListSource(demonstrations, demonstrations, train_rankings=rankings, held_out_rankings=rankings[:1])

    def prompts(batch: Mapping[str, Any]) -> int:
        return len(batch["ranks"])

    context = _context(config, {"policy": folder / "policy"}, data, _SilentTracker())
    with patch.object(reward_stage, "build_trainer", _gated(reward_stage.build_trainer, prompts, gate, job)):
        reward_stage.run(context)


def sft(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    config = _config(
        job,
        sft=SFTConfig(
            optim=OptimConfig(lr=workload.LEARNING_RATE),
            epochs=ENDLESS,
            batch_size=workload.SFT_BATCH,
            micro_batch_size_per_device=SFT_MICRO_BATCH,
        ),
    )
    data = ListSource(_demonstrations(3200, job), _demonstrations(8, job))

    def tokens(batch: Mapping[str, Any]) -> int:
        return int(batch["attention_mask"].sum())

    context = _context(config, {"base": folder / "policy"}, data, _SilentTracker())
    with patch.object(sft_stage, "build_trainer", _gated(trainer.build_trainer, tokens, gate, job)):
        sft_stage.run(context)


def _config(job: Job, **stage: Any) -> Config:
    exact = job.precision == "float32"
    return Config(
        model=ModelConfig(),
        data=DataConfig(source=DataSourceName.jsonl, path="none", max_prompt_tokens=64, max_response_tokens=64),
        rollout=RolloutConfig(max_new_tokens=job.new_tokens),
        tracker=TrackerConfig(progress=False),
        launch=LaunchConfig(
            threads=torch.get_num_threads(),
            float32_matmul=Float32Matmul.highest if exact else Float32Matmul.auto,
        ),
        **stage,
    )


def _context(config: Config, parents: dict[str, Path], data: ListSource, tracker: Any) -> StageContext:
    prepare_torch(config)
    folder = Path(tempfile.mkdtemp(prefix="versus-trl-"))
    return StageContext(config, StageFolder(folder), parents, tracker, data, resume=False)


def _prompt(ids: Sequence[int], number: int) -> Prompt:
    return Prompt(f"benchmark:{number}", (Message(Role.user, workload.text(list(ids))),))


def _demonstrations(count: int, job: Job) -> list[Demonstration]:
    rows = enumerate(workload.demonstrations(count, job.lengths))
    return [Demonstration(_prompt(prompt, i), workload.text(response)) for i, (prompt, response) in rows]


def _gated(build: Callable[..., Any], count: Callable[[Any], int], gate: Gate, job: Job) -> Callable[..., Any]:
    """The stage's own trainer, and it waits for the parent."""

    def build_gated(*args: Any) -> Any:
        trainer = build(*args)
        TrainerGate(trainer, count, gate, STEPS_AN_ITERATION[job.task])
        return trainer

    return build_gated


class _SilentTracker:
    """Takes what a Tracker takes."""

    def log(self, step: int, metrics: Mapping[str, float]) -> None: ...

    def samples(self, step: int, rows: Sequence[Mapping[str, Any]]) -> None: ...

    def rewind(self, step: int) -> None: ...


class _IterationTracker(_SilentTracker):
    """PPO logs once an iteration: there the worker waits."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def log(self, step: int, metrics: Mapping[str, float]) -> None:
        phases = {name: metrics[f"time/{name}"] for name in ("rollout_s", "experience_s", "update_s")}
        self._gate.done(1.0, response_tokens=metrics["rollout/response_tokens"], **phases)

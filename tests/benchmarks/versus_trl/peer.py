"""The peer's side: TRL 1.12's PPOTrainer, RewardTrainer and SFTTrainer, as their documentation sets them up.

precision: float32 is float32 without activation checkpointing; default is what their configs say when not told
(bfloat16 autocast and, for reward and SFT, activation checkpointing); settings is float32 with the two settings that
speed up any trainer on a CPU: oneDNN's matrix products and attention as plain products.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from itertools import combinations
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from transformers import (
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    AutoTokenizer,
    GenerationConfig,
    TrainerCallback,
)
from trl import RewardConfig, RewardTrainer, SFTConfig, SFTTrainer
from trl.experimental.ppo import PPOConfig, PPOTrainer
from trl.experimental.ppo.ppo_trainer import batch_generation

from tests.benchmarks.versus_trl import workload
from tests.benchmarks.versus_trl.gate import Gate
from tests.benchmarks.versus_trl.trainer_gate import STEPS_AN_ITERATION, TrainerGate
from tests.benchmarks.versus_trl.workload import Job

ENDLESS = 10**6
MICRO_PAIRS = 32  # pairs in one forward pass of the reward trainer, three of them a step


class IterationGate(TrainerCallback):
    """PPO ends one step an iteration: there the worker waits."""

    def __init__(self, gate: Gate) -> None:
        self._gate = gate

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._gate.done()

    def on_step_end(self, *args: Any, **kwargs: Any) -> None:
        self._gate.done(1.0)


def ppo(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    policy, reference = (_load(AutoModelForCausalLM, folder / "policy", job) for _ in range(2))
    reward_model, value_model = (
        _load(AutoModelForSequenceClassification, folder / "reward_model", job, num_labels=1) for _ in range(2)
    )
    arguments = PPOConfig(
        **_arguments(job),
        per_device_train_batch_size=job.batch,
        total_episodes=job.batch * ENDLESS,
        num_ppo_epochs=workload.PPO_EPOCHS,
        num_mini_batches=1,
        num_sample_generations=0,
        response_length=job.new_tokens,
        stop_token="eos",
        temperature=1.0,
        missing_eos_penalty=1.0,
    )
    trainer = PPOTrainer(
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        model=policy,
        ref_model=reference,
        reward_model=reward_model,
        value_model=value_model,
        train_dataset=Dataset.from_dict({"input_ids": workload.prompts(64 * 16)}),
        callbacks=[IterationGate(gate)],
    )
    trainer.train()


def rollout(job: Job, root: Path, gate: Gate) -> None:
    policy = _load(AutoModelForCausalLM, workload.folder_of(root, job) / "policy", job).eval()
    policy.generation_config.eos_token_id = workload.END
    settings = GenerationConfig(max_new_tokens=job.new_tokens, temperature=1.0, top_k=0.0, top_p=1.0, do_sample=True)
    gate.done()
    for seed in range(ENDLESS):
        ids = workload.prompts(job.batch, seed)
        width = max(map(len, ids))
        queries = torch.tensor([[workload.PAD] * (width - len(row)) + row for row in ids])
        whole, _ = batch_generation(policy, queries, 64, workload.PAD, settings)
        gate.done(int((whole[:, width:] != workload.PAD).sum()))


def reward(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    pairs: dict[str, list[list[int]]] = {"chosen_ids": [], "rejected_ids": []}
    for prompt, completions in workload.rankings(2048, job.lengths):
        for better, worse in combinations(completions, 2):
            pairs["chosen_ids"].append([*prompt, *better, workload.END])
            pairs["rejected_ids"].append([*prompt, *worse, workload.END])
    a_prompt = workload.COMPLETIONS * (workload.COMPLETIONS - 1) // 2
    arguments = RewardConfig(
        **_arguments(job),
        per_device_train_batch_size=MICRO_PAIRS,
        gradient_accumulation_steps=workload.REWARD_BATCH * a_prompt // MICRO_PAIRS,
        num_train_epochs=ENDLESS,
    )
    trainer = RewardTrainer(
        model=_load(AutoModelForSequenceClassification, folder / "policy", job, num_labels=1),
        args=arguments,
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        train_dataset=Dataset.from_dict(pairs),
    )

    def prompts(batch: Mapping[str, Any]) -> float:
        return len(batch["input_ids"]) / 2 / a_prompt

    TrainerGate(trainer, prompts, gate, STEPS_AN_ITERATION[job.task])
    trainer.train()


def sft(job: Job, root: Path, gate: Gate) -> None:
    folder = workload.folder_of(root, job)
    rows: dict[str, list[list[int]]] = {"input_ids": [], "labels": []}
    for prompt, response in workload.demonstrations(3200, job.lengths):
        rows["input_ids"].append([*prompt, *response, workload.END])
        rows["labels"].append([-100] * len(prompt) + [*response, workload.END])
    trainer = SFTTrainer(
        model=_load(AutoModelForCausalLM, folder / "policy", job),
        args=SFTConfig(**_arguments(job), per_device_train_batch_size=workload.SFT_BATCH, num_train_epochs=ENDLESS),
        processing_class=AutoTokenizer.from_pretrained(folder / "policy"),
        train_dataset=Dataset.from_dict(rows),
    )

    def tokens(batch: Mapping[str, Any]) -> int:
        return int(batch["attention_mask"].sum())

    TrainerGate(trainer, tokens, gate, STEPS_AN_ITERATION[job.task])
    trainer.train()


def _arguments(job: Job) -> dict[str, Any]:
    """Keyword arguments that all three configs share. What is not said here is TRL's own choice."""
    shared: dict[str, Any] = {
        "output_dir": tempfile.mkdtemp(prefix="versus-trl-"),
        "learning_rate": workload.LEARNING_RATE,
        "use_cpu": True,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
    }
    if job.precision != "default":
        shared |= {"bf16": False, "gradient_checkpointing": False}
    return shared


def _load(auto_class: Any, folder: Path, job: Job, **settings: Any) -> Any:
    if job.precision == "settings":
        torch.set_float32_matmul_precision("medium")
        settings["attn_implementation"] = "eager"
    return auto_class.from_pretrained(folder, dtype=torch.float32, **settings)

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf.config import TrackerConfig
from rlhf.runtime.jsonl import read_jsonl
from rlhf.training.callback import install, metric_names
from rlhf.training.tracking import Tracker


def test_trainer_names_become_ours() -> None:
    logs = {
        "loss": 1.5,
        "learning_rate": 1e-3,
        "grad_norm": 0.5,
        "epoch": 0.5,
        "mean_token_accuracy": 0.25,
        "eval_loss": 1.0,
        "eval_accuracy": 0.75,
        "eval_runtime": 2.0,
        "eval_samples_per_second": 8.0,
        "reward/margin": 0.1,
        "train_runtime": 9.0,
        "train_steps_per_second": 1.0,
        "total_flos": 1e12,
    }
    assert metric_names(logs) == {
        "train/loss": 1.5,
        "optim/lr": 1e-3,
        "optim/grad_norm": 0.5,
        "train/epoch": 0.5,
        "train/mean_token_accuracy": 0.25,
        "eval/loss": 1.0,
        "eval/accuracy": 0.75,
        "time/eval_s": 2.0,
        "reward/margin": 0.1,
        "time/train_s": 9.0,
    }


def test_a_real_trainer_logs_to_the_tracker_and_prints_only_our_bar(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    from transformers import GPT2Config, GPT2LMHeadModel, Trainer, TrainingArguments

    model = GPT2LMHeadModel(GPT2Config(vocab_size=11, n_positions=8, n_embd=8, n_layer=1, n_head=1))
    rows = [{"input_ids": torch.arange(4), "labels": torch.arange(4)}] * 4
    arguments = TrainingArguments(
        output_dir=str(tmp_path / "out"),
        per_device_train_batch_size=2,
        num_train_epochs=2,
        logging_steps=1,
        eval_strategy="epoch",
        save_strategy="no",
        report_to=[],
        use_cpu=True,
    )
    with Tracker(tmp_path, TrackerConfig(), "sft", "demo", {}) as tracker:
        trainer = Trainer(model=model, args=arguments, train_dataset=rows, eval_dataset=rows)
        install(trainer, tracker, "sft", enabled=True)
        trainer.train()
    lines = read_jsonl(tmp_path / "metrics.jsonl")
    assert [row["step"] for row in lines if "train/loss" in row] == [1, 2, 3, 4]
    assert [row["step"] for row in lines if "eval/loss" in row] == [2, 4]
    assert all("optim/lr" in row and "optim/grad_norm" in row for row in lines if "train/loss" in row)
    captured = capsys.readouterr()
    assert "{'loss'" not in captured.out
    assert "sft: 100%" in captured.err
    assert "4/4" in captured.err
    assert "held out" not in captured.err

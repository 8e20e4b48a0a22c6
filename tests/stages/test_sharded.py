"""SFT, reward training and pretraining on several processes under ZeRO: the losses and weights of one whole process."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from rlhf.config import (
    ArchitectureConfig,
    Config,
    Device,
    LaunchConfig,
    ModelConfig,
    PretrainConfig,
    TrackerConfig,
    ZeroConfig,
)
from tests.stages import test_reward, test_sft
from tests.support.fakes import ListSource, make_context
from tests.support.ranks import run_ranks
from tests.support.tiny import save_tiny_model

WEIGHTS = 5e-5  # the largest difference of a weight that rounding may make
METRICS = 2e-4  # and of a loss or another number
NOT_COMPARED = ("time/", "train/tokens_per_second", "train/epoch")  # the last: where rows fill up, of more rows


def make(stage: str, folder: Path, base: str) -> Any:
    """A stage whose rows differ in length and do not fill the last batch."""
    if stage == "sft":
        config = test_sft.make_config(base, micro_batch_size_per_device=2, epochs=2)
        context = test_sft.make(folder, config, count=45)
    elif stage == "reward":
        config = test_reward.make_config(base, micro_batch_size_per_device=2, epochs=2)
        context = test_reward.make(folder, config, count=21)
    else:
        architecture = ArchitectureConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2, vocab_size=400)
        config = Config(
            model=ModelConfig(architecture=architecture),
            pretrain=PretrainConfig(epochs=2, batch_size=8, sequence_length=32, bf16=False),
            tracker=TrackerConfig(progress=False),
        )
        texts = [f"Anna has {i % 10} red hats. Ben saw {i % 7} cows." for i in range(137)]
        context = make_context(folder / "pretrain", config, {}, ListSource([], [], documents=texts))
    context.config.launch = LaunchConfig(device=Device.cpu)
    return context


Outcome = tuple[dict[str, Any], dict[str, torch.Tensor]]  # what was logged, and the saved weights


def start(ranks: int, zero: int, stage: str, folder: Path, base: str, *, stop_at: int | None, resume: bool) -> Path:
    """Run it until it is done, or asked to stop after a step; its folder."""
    folder.mkdir(exist_ok=True)
    context = make(stage, folder, base)
    context.config.zero = ZeroConfig(zero)
    context.resume = resume
    arguments = folder / "arguments.pickle"
    arguments.write_bytes(pickle.dumps((stage, context, stop_at)))
    run_ranks(ranks, "tests.support.stage_rank", str(arguments))
    return Path(context.folder.path)


def run_on(ranks: int, zero: int, stage: str, folder: Path, base: str) -> Outcome:
    path = start(ranks, zero, stage, folder, base, stop_at=None, resume=False)
    return json.loads((path / "logged.json").read_text()), load_file(path / "model" / "model.safetensors")


def numbers(row: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in row.items() if not name.startswith(NOT_COMPARED)}


@pytest.mark.slow
@pytest.mark.parametrize("stage", ["sft", "reward", "pretrain"])
def test_two_sharded_processes_end_where_one_whole_one_does(stage: str, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama", chat_template=True)
    alone, expected = run_on(1, 0, stage, tmp_path / "alone", base)
    for zero in (0, 1, 2, 3):
        logged, weights = run_on(2, zero, stage, tmp_path / f"zero{zero}", base)
        assert len(logged["rows"]) == len(alone["rows"])
        for row, other in zip(logged["rows"], alone["rows"], strict=True):
            assert numbers(row) == pytest.approx(numbers(other), abs=METRICS, rel=METRICS)
        assert numbers(logged["metrics"]) == pytest.approx(numbers(alone["metrics"]), abs=METRICS, rel=METRICS)
        assert weights.keys() == expected.keys()
        for name, weight in weights.items():
            torch.testing.assert_close(weight, expected[name], atol=WEIGHTS, rtol=1e-3)


@pytest.mark.slow
@pytest.mark.parametrize("zero", [1, 2, 3])
@pytest.mark.parametrize(("before", "after"), [(2, 1), (1, 2)])
def test_another_number_of_ranks_goes_on_from_a_checkpoint(zero: int, before: int, after: int, tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama", chat_template=True)
    whole, expected = run_on(1, 0, "sft", tmp_path / "whole", base)
    folder = tmp_path / "changed"
    assert not (start(before, zero, "sft", folder, base, stop_at=4, resume=False) / "model").exists()
    path = start(after, zero, "sft", folder, base, stop_at=None, resume=True)
    for name, weight in load_file(path / "model" / "model.safetensors").items():
        torch.testing.assert_close(weight, expected[name], atol=WEIGHTS, rtol=1e-3)
    metrics = json.loads((path / "logged.json").read_text())["metrics"]
    assert numbers(metrics) == pytest.approx(numbers(whole["metrics"]), abs=METRICS, rel=METRICS)
    assert {file.name for file in (path / "checkpoints").iterdir() if not file.name.startswith("checkpoint-")} == set()

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from transformers import TrainingArguments

from rlhf.config import Config, Device, DType, LaunchConfig, ModelConfig, OptimConfig, ZeroConfig
from rlhf.errors import UserError
from rlhf.training.rows import BucketSampler
from rlhf.training.trainer import deepspeed_config, training_arguments


def arguments(config: Config, **settings: Any) -> dict[str, Any]:
    chosen = {"batch_size": 32, "micro_batch_size": 8, "epochs": 2, **settings}
    return training_arguments(
        config, OptimConfig(warmup_ratio=0.1), stage="sft", checkpoints_dir=Path("checkpoints"), **chosen
    )


@given(st.lists(st.integers(1, 200), min_size=1, max_size=700), st.integers(1, 16), st.integers(0, 3))
def test_bucket_sampler_gives_each_row_once_an_epoch_and_repeats_itself(
    lengths: list[int], batch_size: int, epoch: int
) -> None:
    first = list(BucketSampler(lengths, batch_size, 0, lambda: epoch))
    assert sorted(first) == list(range(len(lengths)))
    assert first == list(BucketSampler(lengths, batch_size, 0, lambda: epoch + 0.4))


def test_bucket_sampler_pads_little_and_changes_with_the_epoch() -> None:
    lengths = [(i * 37) % 100 + 1 for i in range(1600)]
    order = list(BucketSampler(lengths, 16, 0, lambda: 0))
    batches = [order[i : i + 16] for i in range(0, 1600, 16)]
    padded = sum(16 * max(lengths[i] for i in batch) for batch in batches)
    assert padded < 1.1 * sum(lengths)
    assert order != list(BucketSampler(lengths, 16, 0, lambda: 1))
    means = [sum(lengths[i] for i in batch) / 16 for batch in batches]
    assert means != sorted(means)
    assert means != sorted(means, reverse=True)


def test_batch_is_split_over_processes_then_over_accumulation(monkeypatch: pytest.MonkeyPatch) -> None:
    assert arguments(Config())["gradient_accumulation_steps"] == 4
    monkeypatch.setenv("WORLD_SIZE", "2")
    built = arguments(Config())
    assert (built["per_device_train_batch_size"], built["gradient_accumulation_steps"]) == (8, 2)
    monkeypatch.setenv("WORLD_SIZE", "8")
    built = arguments(Config())
    assert (built["per_device_train_batch_size"], built["gradient_accumulation_steps"]) == (4, 1)
    monkeypatch.setenv("WORLD_SIZE", "3")
    with pytest.raises(UserError, match=r"sft\.batch_size=32 does not split over 3 processes"):
        arguments(Config())


def test_warm_up_is_a_share_of_all_steps() -> None:
    built = TrainingArguments(**arguments(Config()))
    assert [built.get_warmup_steps(steps) for steps in (8, 200)] == [1, 20]  # a tenth, rounded up


def test_float16_on_a_cpu_is_refused() -> None:
    config = Config(model=ModelConfig(dtype=DType.float16), launch=LaunchConfig(device=Device.cpu))
    with pytest.raises(UserError, match=r"model\.dtype=float16"):
        arguments(config)


def test_deepspeed_is_off_at_stage_0_and_sharded_above() -> None:
    assert deepspeed_config(ZeroConfig()) is None
    settings = deepspeed_config(ZeroConfig(stage=3, offload=True))
    assert settings is not None
    zero = settings["zero_optimization"]
    assert zero["stage"] == 3
    assert zero["offload_param"] == zero["offload_optimizer"] == {"device": "cpu"}

"""PPO that goes wrong ends with advice, moves nothing, and loses nothing: bad numbers, signals, damage, a full disk."""

from __future__ import annotations

import json
import logging
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from rlhf.config import KLConfig, LimitsConfig, OptimConfig
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder
from rlhf.training import stopping
from stages import ppo
from tests.stages import test_ppo
from tests.stages.test_ppo import logged, run, same, settings, weights

parents = test_ppo.parents  # the fixture
Parents = Callable[[str], dict[str, Path]]


def steps(path: Path) -> list[float]:
    return [row["step"] for row in logged(path)]


@pytest.mark.parametrize(
    ("limits", "words"),
    [
        (LimitsConfig(kl=1.5), r"objective/kl is .* over ppo\.limits\.kl=1\.5.*ppo\.limits\.kl=null"),
        (LimitsConfig(ratio=1.5), r"policy/ratio_max is .* over ppo\.limits\.ratio=1\.5"),
    ],
)
def test_a_policy_that_runs_away_ends_the_run_with_advice(
    limits: LimitsConfig, words: str, parents: Parents, tmp_path: Path
) -> None:
    config = settings(
        episodes=480, save_every=1, kl=KLConfig(coef=0.0), limits=limits, optim=OptimConfig(lr=3e-2, min_lr_ratio=1.0)
    )
    with pytest.raises(UserError, match=words):
        run(config, parents("llama"), tmp_path)
    assert not (tmp_path / "model").exists()


def test_the_limits_of_a_healthy_run_are_far_away(parents: Parents, tmp_path: Path) -> None:
    metrics = run(settings(), parents("llama"), tmp_path)
    assert metrics["objective/kl"] < 0.1 * LimitsConfig().kl  # type: ignore[operator]
    assert metrics["policy/ratio_max"] < 0.1 * LimitsConfig().ratio  # type: ignore[operator]


def test_a_batch_that_gives_no_number_is_kept_and_nothing_moves(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ppo.update
    calls = 0

    def spoilt(policy: object, value_model: object, experience: object, *args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            experience.advantages[0, 0] = float("nan")  # type: ignore[attr-defined]
        return real(policy, value_model, experience, *args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ppo, "update", spoilt)
    with pytest.raises(UserError, match=r"iteration 3: policy/loss is nan.*The batch is in .*step-3.*step-2"):
        run(settings(), parents("llama"), tmp_path)
    kept = tmp_path / "not_finite" / "step-3"
    assert torch.isnan(load_file(kept / "batch.safetensors")["advantages"][0, 0])
    episodes = [json.loads(line) for line in (kept / "episodes.jsonl").read_text().splitlines()]
    assert len(episodes) == 16
    assert episodes[0].keys() == {"prompt_id", "response", "score"}
    monkeypatch.undo()
    run(settings(), parents("llama"), tmp_path, resume=True)
    run(settings(), parents("llama"), tmp_path.with_name("whole"))
    assert same(weights(tmp_path / "model"), weights(tmp_path.with_name("whole") / "model"))


def test_a_signal_ends_the_run_after_its_step_and_it_goes_on_to_the_same_bits(
    parents: Parents, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = ppo.update
    calls = 0

    def interrupted(*args: object, **kwargs: object) -> object:
        nonlocal calls
        calls += 1
        if calls == 3:
            os.kill(os.getpid(), signal.SIGTERM)
        return real(*args, **kwargs)  # type: ignore[arg-type]

    monkeypatch.setattr(ppo, "update", interrupted)
    config = settings(save_every=100)
    with pytest.raises(stopping.Stopped, match="Stopped after step 3, which is saved"):
        run(config, parents("llama"), tmp_path / "stopped")
    assert steps(tmp_path / "stopped")[-1] == 3
    monkeypatch.undo()
    run(config, parents("llama"), tmp_path / "stopped", resume=True)
    run(config, parents("llama"), tmp_path / "whole")
    assert steps(tmp_path / "stopped") == steps(tmp_path / "whole")
    assert same(weights(tmp_path / "stopped" / "model"), weights(tmp_path / "whole" / "model"))


def test_a_damaged_newest_checkpoint_costs_its_steps_alone(
    parents: Parents, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    half = settings(episodes=48, save_every=1)
    run(half, parents("llama"), tmp_path / "damaged")
    file = tmp_path / "damaged" / "checkpoints" / "step-3" / "policy.safetensors"
    data = bytearray(file.read_bytes())
    data[-100] ^= 1
    file.write_bytes(data)
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        run(settings(save_every=1), parents("llama"), tmp_path / "damaged", resume=True)
    assert "step-3 is damaged: policy.safetensors is not what was written" in caplog.text
    run(settings(save_every=1), parents("llama"), tmp_path / "whole")
    assert steps(tmp_path / "damaged") == steps(tmp_path / "whole")
    assert same(weights(tmp_path / "damaged" / "model"), weights(tmp_path / "whole" / "model"))
    assert StageFolder(tmp_path / "damaged").latest_checkpoint() is not None

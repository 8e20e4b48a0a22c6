"""PPO end to end on random models: what moves, what does not, and what a resumed run must repeat."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf import models
from rlhf.artifacts import StageFolder
from rlhf.config import (
    Config,
    KLConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    PtxConfig,
    Quantization,
    RolloutConfig,
    TrackerConfig,
    ZeroConfig,
)
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role, Sampler, Split
from rlhf.errors import UserError
from rlhf.pipeline import StageContext
from rlhf.tracking import Tracker
from stages import ppo
from tests.tiny import LORA, needs_bitsandbytes, save_adapted_reward_model, save_tiny_model

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class ToySource:
    """Prompts of one to ten words; gold likes responses with the letter e."""

    def prompts(self, split: Split) -> list[Prompt]:
        start = 0 if split == Split.train else 100
        return [Prompt(f"toy:{start + i}", (Message(Role.user, " ".join(WORDS[: 1 + i % 10])),)) for i in range(24)]

    def texts(self, split: Split) -> list[str]:
        return [" ".join(WORDS[i % 7 :]) for i in range(60)]

    @property
    def gold(self) -> Callable[[Prompt, str], float] | None:
        return lambda prompt, text: float("e" in text)

    def demonstrations(self, split: Split) -> list[Demonstration]:
        raise AssertionError("PPO reads no demonstrations")

    def rankings(self, split: Split, sample: Sampler) -> list[Ranking]:
        raise AssertionError("PPO reads no rankings")

    def fingerprint(self) -> dict[str, Any]:
        return {}


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Path]]:
    made: dict[str, dict[str, Path]] = {}

    def make(architecture: str) -> dict[str, Path]:
        if architecture not in made:
            root = tmp_path_factory.mktemp(architecture)
            save_tiny_model(root / "policy", architecture, pad=architecture != "gpt2")
            save_reward_model(root / "policy", root / "reward_model")
            made[architecture] = {name: root / name for name in ("policy", "reward_model")}
        return made[architecture]

    return make


def save_reward_model(base: Path, folder: Path) -> None:
    """A random head on the base: a score that depends on the last tokens most."""
    reward_model = models.load_reward_model(str(base), ModelConfig())
    torch.manual_seed(5)
    torch.nn.init.normal_(reward_model.score.weight, std=1.0)
    models.save_model(reward_model, models.load_tokenizer(str(base)), folder)


def settings(**ppo_values: Any) -> Config:
    defaults: dict[str, Any] = {
        "episodes": 64,
        "batch_size": 16,
        "num_minibatches": 2,
        "epochs": 2,
        "optim": OptimConfig(lr=3e-3, min_lr_ratio=1.0),
        "value_optim": OptimConfig(lr=3e-3, min_lr_ratio=1.0),
        "evaluate_every": 2,
        "evaluation_prompts": 8,
        "save_every": 2,
        "missing_eos_penalty": 0.0,
    }
    return Config(
        ppo=PPOConfig(**(defaults | ppo_values)),
        rollout=RolloutConfig(max_new_tokens=6),
        tracker=TrackerConfig(progress=False),
    )


def run(config: Config, parents: dict[str, Path], path: Path, *, resume: bool = False) -> dict[str, float]:
    torch.manual_seed(config.seed)
    tracker = Tracker(path, config.tracker, "ppo", "test", {})
    context = StageContext(config, StageFolder(path), parents, tracker, ToySource(), resume)
    try:
        return ppo.run(context)
    finally:
        tracker.close()


def logged(path: Path) -> list[dict[str, float]]:
    return [json.loads(line) for line in (path / "metrics.jsonl").read_text().splitlines()]


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_file(folder / "model.safetensors")


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)


@pytest.mark.parametrize("architecture", ["llama", "gpt2"])
def test_policy_and_value_model_move_and_the_parents_do_not(
    architecture: str, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    found = parents(architecture)
    before = {name: weights(folder) for name, folder in found.items()}
    run(settings(kl=KLConfig(coef=0.0)), found, tmp_path)
    assert all(same(before[name], weights(folder)) for name, folder in found.items())
    policy, value_model = weights(tmp_path / "model"), weights(tmp_path / "value_model")
    still = [name for name, tensor in policy.items() if torch.equal(tensor, before["policy"][name])]
    assert still == []
    still = [name for name, tensor in value_model.items() if torch.equal(tensor, before["reward_model"][name])]
    assert still == []
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.vocab_size
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "value_model").config.num_labels == 1
    assert AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id is not None


def test_kl_is_zero_before_training_and_measured_at_coefficient_zero(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    run(settings(kl=KLConfig(coef=0.0)), parents("llama"), tmp_path)
    untrained, first, second = logged(tmp_path)[:3]
    assert untrained["step"] == 0
    assert untrained["eval/kl"] == 0
    assert first["objective/kl"] == 0
    assert second["objective/kl"] != 0
    assert second["objective/reward"] == pytest.approx(second["objective/score"], abs=1e-6)


def test_resuming_gives_the_bits_of_never_having_stopped(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(kl=KLConfig(coef=0.1, target=2.0, horizon=50), ema_decay=0.9, ptx=PtxConfig(0.5, 0.5, 8))
    whole = run(config, parents("llama"), tmp_path / "whole")

    calls = 0
    real_update = ppo.update

    def dies_in_the_fourth(*args: Any, **kwargs: Any) -> dict[str, float]:
        nonlocal calls
        calls += 1
        if calls == 4:
            raise KeyboardInterrupt
        return real_update(*args, **kwargs)

    monkeypatch.setattr(ppo, "update", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(config, parents("llama"), tmp_path / "stopped")
    monkeypatch.setattr(ppo, "update", real_update)
    resumed = run(config, parents("llama"), tmp_path / "stopped", resume=True)

    for name in ("model", "value_model"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "stopped" / name))

    def untimed(rows: Sequence[dict[str, float]]) -> list[dict[str, float]]:
        return [{k: v for k, v in row.items() if not k.startswith("time/")} for row in rows]

    assert untimed(logged(tmp_path / "whole")) == untimed(logged(tmp_path / "stopped"))
    assert untimed([whole]) == untimed([resumed])
    samples = [(tmp_path / name / "samples.jsonl").read_text() for name in ("whole", "stopped")]
    assert samples[0] == samples[1]
    assert logged(tmp_path / "whole")[-1]["kl/coef"] != 0.1


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings(episodes=32, evaluate_every=0)
    other = settings(episodes=32, evaluate_every=0)
    other.seed = 1
    for name, chosen in (("one", config), ("two", config), ("three", other)):
        run(chosen, parents("llama"), tmp_path / name)
    one, two, three = (weights(tmp_path / name / "model") for name in ("one", "two", "three"))
    assert same(one, two)
    assert not same(one, three)


def test_first_minibatch_has_ratio_one_and_nothing_clipped(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    for architecture in ("llama", "gpt2", "gpt_neox", "qwen2"):
        run(
            settings(episodes=16, num_minibatches=1, epochs=1, micro_batch_tokens=64),
            parents(architecture),
            tmp_path / architecture,
        )
        final = logged(tmp_path / architecture)[-1]
        assert final["policy/ratio_max"] == 1
        assert final["policy/clipfrac"] == 0
        assert final["policy/approx_kl"] == 0


@pytest.fixture(scope="module")
def sweep(parents: Callable[[str], dict[str, Path]], tmp_path_factory: pytest.TempPathFactory) -> dict[float, Path]:
    """The same toy at two coefficients, long enough to learn."""
    folders = {}
    for coef in (0.0, 2.0):
        folders[coef] = tmp_path_factory.mktemp(f"coef{coef}")
        config = settings(episodes=24 * 48, batch_size=48, kl=KLConfig(coef=coef), evaluate_every=0, save_every=100)
        run(config, parents("llama"), folders[coef])
    return folders


def test_the_score_rises(sweep: dict[float, Path]) -> None:
    rows = logged(sweep[0.0])
    first, last = (sum(r["objective/score"] for r in part) / 3 for part in (rows[:3], rows[-3:]))
    assert last > first + 0.5


def test_a_larger_coefficient_ends_at_a_smaller_kl(sweep: dict[float, Path]) -> None:
    loose, tight = (logged(sweep[coef])[-1]["objective/kl"] for coef in (0.0, 2.0))
    assert 0 < tight < 0.5 * loose


def test_lora_reference_is_the_policy_with_its_adapter_off(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings()
    config.model.lora = LoraConfig(r=4)
    run(config, parents("llama"), tmp_path)
    rows = logged(tmp_path)
    assert rows[1]["objective/kl"] == 0
    assert rows[-1]["objective/kl"] != 0
    before, after = weights(parents("llama")["policy"]), weights(tmp_path / "model")
    assert before.keys() == after.keys()
    moved = {name for name in before if not torch.equal(before[name], after[name])}
    assert moved
    assert all("proj" in name for name in moved)


@pytest.fixture(scope="module")
def adapted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A policy, and a reward model that was trained as an adapter of it."""
    root = tmp_path_factory.mktemp("adapted")
    save_tiny_model(root / "policy", "gpt2")
    save_adapted_reward_model(root / "policy", root / "reward_model")
    return {name: root / name for name in ("policy", "reward_model")}


def sharing(**ppo_values: Any) -> Config:
    config = settings(**ppo_values)
    config.model.lora = LORA
    config.ppo.share_base = True
    return config


def test_roles_on_one_base_train_like_roles_apart(adapted: dict[str, Path], tmp_path: Path) -> None:
    """Until the first update the numbers are the same but for rounding; the adapters then start elsewhere."""
    config = sharing()
    run(config, adapted, tmp_path / "shared")
    config.ppo.share_base = False
    run(config, adapted, tmp_path / "apart")
    shared, apart = (logged(tmp_path / name) for name in ("shared", "apart"))
    for name in ("objective/score", "objective/reward", "policy/entropy", "value/explained_variance"):
        assert shared[1][name] == pytest.approx(apart[1][name], abs=1e-4)
    assert shared[1]["objective/kl"] == 0
    assert shared[-1]["objective/kl"] != 0
    for name in ("model", "value_model"):
        before = weights(adapted["policy" if name == "model" else "reward_model"])
        after = weights(tmp_path / "shared" / name)
        moved = {key for key in before if not torch.allclose(before[key], after[key], atol=1e-6)}
        assert moved
        assert all(".c_" in key or key == "score.weight" for key in moved)
    assert (
        AutoModelForSequenceClassification.from_pretrained(tmp_path / "shared" / "value_model").config.num_labels == 1
    )


def test_resuming_on_one_base_gives_the_bits_of_never_having_stopped(
    adapted: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(sharing(), adapted, tmp_path / "whole")
    log = Tracker.log

    def dies_at_three(self: Tracker, step: int, *args: Any) -> None:
        if step == 3:
            raise KeyboardInterrupt
        log(self, step, *args)

    monkeypatch.setattr(Tracker, "log", dies_at_three)
    with pytest.raises(KeyboardInterrupt):
        run(sharing(), adapted, tmp_path / "stopped")
    monkeypatch.setattr(Tracker, "log", log)
    run(sharing(), adapted, tmp_path / "stopped", resume=True)
    for name in ("model", "value_model"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "stopped" / name))


def test_a_reward_model_trained_whole_cannot_lend_its_value_model_the_base(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match=r"train the reward model with model\.lora\.r=4"):
        run(sharing(), parents("llama"), tmp_path)
    found = parents("llama")
    run(sharing(episodes=16), {**found, "value_model": found["policy"]}, tmp_path)
    assert (tmp_path / "value_model" / "adapter" / "base.json").is_file()


@needs_bitsandbytes
@pytest.mark.parametrize("share_base", [False, True])
def test_adapters_on_a_quantized_base_start_at_ratio_one_and_are_saved_whole(
    share_base: bool, adapted: dict[str, Path], tmp_path: Path
) -> None:
    config = sharing(episodes=32, num_minibatches=1, epochs=1)
    config.ppo.share_base = share_base
    config.model.quantization = Quantization.int8
    run(config, adapted, tmp_path)
    rows = logged(tmp_path)
    assert all(row["policy/ratio_max"] == 1 for row in rows[1:])
    assert rows[1]["objective/kl"] == 0
    assert rows[-1]["objective/kl"] != 0
    for name in ("model", "value_model"):
        assert {t.dtype for t in weights(tmp_path / name).values()} == {torch.float32}
    assert AutoModelForCausalLM.from_pretrained(tmp_path / "model").config.vocab_size


def test_average_of_the_policy_is_what_is_saved(parents: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    run(settings(episodes=32), parents("llama"), tmp_path / "last")
    run(settings(episodes=32, ema_decay=0.9), parents("llama"), tmp_path / "average")
    start = weights(parents("llama")["policy"])
    last, average = weights(tmp_path / "last" / "model"), weights(tmp_path / "average" / "model")

    def distance(one: dict[str, torch.Tensor]) -> float:
        return float(sum((one[name] - start[name]).norm() for name in start))

    assert 0 < distance(average) < 0.6 * distance(last)


def test_pretraining_gradients_lower_the_loss_on_the_text(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    run(settings(ptx=PtxConfig(coef=1.0, sequence_length=8)), parents("llama"), tmp_path)
    rows = logged(tmp_path)
    assert rows[-1]["policy/ptx_loss"] < rows[1]["policy/ptx_loss"] - 0.2


def test_held_out_prompts_are_scored_with_gold_and_shown(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    metrics = run(settings(), parents("gpt2"), tmp_path)
    assert [row["step"] for row in logged(tmp_path) if "eval/score" in row] == [0, 2, 4]
    assert {"eval/score", "eval/kl", "eval/gold", "eval/response_tokens", "objective/gold"} <= metrics.keys()
    samples = [json.loads(line) for line in (tmp_path / "samples.jsonl").read_text().splitlines()]
    assert [row["step"] for row in samples] == [0] * 8 + [2] * 8 + [4] * 8
    assert samples[0].keys() == {"step", "prompt", "response", "score", "kl", "gold"}


def test_sharding_is_refused_with_the_key_to_change(parents: Callable[[str], dict[str, Path]], tmp_path: Path) -> None:
    config = settings()
    config.zero = ZeroConfig(stage=2)
    with pytest.raises(UserError, match="use zero=none"):
        run(config, parents("llama"), tmp_path)

"""PPO end to end on random models: what moves, what does not, and what a resumed run must repeat."""

from __future__ import annotations

import dataclasses
import json
import logging
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM, AutoModelForSequenceClassification, AutoTokenizer

from rlhf.config import (
    Advantage,
    Config,
    FreezeConfig,
    Keep,
    KLConfig,
    KLEstimator,
    KLPlacement,
    LoraConfig,
    LossMean,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    PtxConfig,
    Quantization,
    RolloutConfig,
    TrackerConfig,
    ValueHead,
)
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role, Sampler, Split
from rlhf.errors import UserError
from rlhf.models.load import load_reward_model
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo import evaluate as evaluation
from rlhf.ppo.engines import hf
from rlhf.runtime.folder import StageFolder
from rlhf.training.context import StageContext
from rlhf.training.tracking import Tracker
from stages import ppo
from tests.support.tiny import LORA, needs_bitsandbytes, save_adapted_reward_model, save_tiny_model

WORDS = ["one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten"]


class ToySource:
    """Prompts of one to ten words; gold likes responses with the letter e."""

    def prompts(self, split: Split) -> list[Prompt]:
        start = 0 if split == Split.train else 100
        return [Prompt(f"toy:{start + i}", (Message(Role.user, " ".join(WORDS[: 1 + i % 10])),)) for i in range(24)]

    def texts(self, split: Split) -> list[str]:
        return [" ".join(WORDS[i % 7 :]) for i in range(60)]

    @property
    def has_texts(self) -> bool:
        return True

    @property
    def gold(self) -> Callable[[Prompt, str], float] | None:
        return lambda prompt, text: float("e" in text)

    def demonstrations(self, split: Split) -> list[Demonstration]:
        return [Demonstration(prompt, "yes") for prompt in self.prompts(split)]

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
    reward_model = load_reward_model(str(base), ModelConfig(), fresh_head=True)
    torch.manual_seed(5)
    torch.nn.init.normal_(reward_model.score.weight, std=1.0)
    save_model(reward_model, load_tokenizer(str(base)), folder)


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
    config = settings(
        kl=KLConfig(coef=0.1, target=2.0, horizon=50), ema_decay=0.9, ptx=PtxConfig(0.5, 0.5, 8), scale_scores=True
    )
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


def learned(
    parents: dict[str, Path], path: Path, **ppo_values: Any
) -> tuple[dict[str, torch.Tensor], dict[str, float]]:
    """The policy after two short iterations, and the last line of metrics."""
    run(settings(episodes=32, evaluate_every=0, save_every=100, **ppo_values), parents, path)
    return weights(path / "model"), logged(path)[-1]


@pytest.mark.parametrize("placement", list(KLPlacement))
def test_estimator_of_the_penalty_changes_what_is_learned_and_not_what_is_measured(
    placement: KLPlacement, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    policies = {}
    for estimator in KLEstimator:
        kl = KLConfig(coef=0.5, estimator=estimator, placement=placement)
        policies[estimator], final = learned(parents("llama"), tmp_path / estimator.value, kl=kl)
        assert final["objective/kl"] != final["objective/kl_k3"]
        assert ("policy/kl_loss" in final) == (placement == KLPlacement.loss)
        if placement == KLPlacement.loss:
            assert final["objective/reward"] == pytest.approx(final["objective/score"], abs=1e-6)
    assert not same(policies[KLEstimator.k1], policies[KLEstimator.k2])
    if placement == KLPlacement.reward:  # in the loss, k2 and k3 have one gradient
        assert not same(policies[KLEstimator.k2], policies[KLEstimator.k3])


def test_kl_in_the_loss_holds_the_policy_near_its_reference(
    sweep: dict[float, Path], parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    kl = KLConfig(coef=2.0, placement=KLPlacement.loss)
    run(settings(episodes=24 * 48, batch_size=48, kl=kl, evaluate_every=0, save_every=100), parents("llama"), tmp_path)
    assert 0 < logged(tmp_path)[-1]["objective/kl"] < 0.5 * logged(sweep[0.0])[-1]["objective/kl"]


@pytest.mark.parametrize(
    "option",
    [{"dual_clip": 1.01}, {"target_kl": 1e-4}, {"entropy_coef": 0.1}, {"loss_mean": LossMean.sequence}],
    ids=lambda option: next(iter(option)),
)
def test_option_of_the_policy_loss_changes_what_is_learned(
    option: dict[str, Any], parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    common: dict[str, Any] = {"epochs": 4, "optim": OptimConfig(lr=3e-2, min_lr_ratio=1.0)}
    plain, _ = learned(parents("llama"), tmp_path / "plain", **common)
    changed, final = learned(parents("llama"), tmp_path / "changed", **common, **option)
    assert not same(plain, changed)
    assert final.get("policy/early_stop") == (1 if "target_kl" in option else None)


def test_a_sampler_that_draws_as_the_trainer_thinks_needs_no_correction_and_another_gets_one(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plain, final = learned(parents("llama"), tmp_path / "agreeing", rollout_correction_cap=2.0)
    assert final["rollout/correction"] == pytest.approx(1.0, abs=1e-4)
    assert final["rollout/logprob_gap"] < 1e-4

    real = hf.generate

    def other_sampler(*args: Any, **kwargs: Any) -> Any:
        drawn = real(*args, **kwargs)
        if drawn.logprobs is None:  # an evaluation's
            return drawn
        shifted = [[x - (5.0 if i % 2 else 0.0) for x in row] for i, row in enumerate(drawn.logprobs)]
        return dataclasses.replace(drawn, logprobs=shifted)

    monkeypatch.setattr(hf, "generate", other_sampler)
    corrected, final = learned(parents("llama"), tmp_path / "differing", rollout_correction_cap=2.0)
    assert final["rollout/logprob_gap"] > 1
    assert 1 < final["rollout/correction"] < 2
    assert not same(plain, corrected)


def test_scores_are_divided_by_the_deviation_of_all_so_far_and_logged_as_they_were(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    _, plain = learned(parents("llama"), tmp_path / "plain", kl=KLConfig(coef=0.0))
    _, scaled = learned(parents("llama"), tmp_path / "scaled", kl=KLConfig(coef=0.0), scale_scores=True)
    first, first_scaled = logged(tmp_path / "plain")[0], logged(tmp_path / "scaled")[0]
    assert first_scaled["objective/score"] == first["objective/score"]
    assert first_scaled["objective/reward"] == pytest.approx(
        first["objective/reward"] / first_scaled["objective/score_std"], rel=1e-4
    )
    assert scaled["objective/score_std"] != first_scaled["objective/score_std"]
    assert scaled["objective/score"] != plain["objective/score"]


def test_length_penalty_is_taken_for_each_token_that_is_not_free(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    for name, values in {"every": {}, "none": {"length_penalty_from": 6}}.items():
        _, final = learned(parents("llama"), tmp_path / name, kl=KLConfig(coef=0.0), length_penalty=0.5, **values)
        tokens = final["rollout/response_tokens"] if name == "every" else 0.0
        assert final["objective/reward"] == pytest.approx(final["objective/score"] - 0.5 * tokens, rel=1e-4)


def test_a_kl_budget_ends_the_run_with_the_policy_that_was_measured(
    parents: Callable[[str], dict[str, Path]],
    tmp_path: Path,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(logging.getLogger("rlhf"), "propagate", True)
    run(settings(episodes=96, kl=KLConfig(coef=0.0)), parents("llama"), tmp_path / "free")
    free = [row for row in logged(tmp_path / "free") if "objective/kl" in row]
    budget = max(row["objective/kl"] for row in free[:3])
    over = next(row for row in free if row["objective/kl"] > budget)
    config = settings(episodes=96, kl=KLConfig(coef=0.0), max_kl=budget)
    with caplog.at_level(logging.INFO, logger="rlhf"):
        final = run(config, parents("llama"), tmp_path / "held")
    rows = [row for row in logged(tmp_path / "held") if "objective/kl" in row]
    assert rows[-1]["step"] == over["step"] < 6
    assert rows[-1]["objective/kl"] == over["objective/kl"] > budget
    assert [row["objective/over_max_kl"] for row in rows] == [0.0] * (len(rows) - 1) + [1.0]
    assert final["objective/over_max_kl"] == 1
    assert "eval/kl" in final
    assert "policy/loss" not in rows[-1]
    assert f"ended after {over['step'] - 1:.0f} of 6 iterations" in caplog.text
    saved = weights(tmp_path / "held" / "model")
    shutil.rmtree(tmp_path / "held" / "model")
    run(config, parents("llama"), tmp_path / "held", resume=True)
    assert same(saved, weights(tmp_path / "held" / "model"))
    assert len([row for row in logged(tmp_path / "held") if "objective/kl" in row]) == len(rows)


def test_best_policy_by_score_less_kl_cost_is_kept_through_a_resume(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Best is step 2: the score of step 3 is higher, and its KL costs more than that is worth."""
    kl = KLConfig(coef=10.0)
    run(settings(kl=kl, episodes=32), parents("llama"), tmp_path / "two_iterations")
    expected = weights(tmp_path / "two_iterations" / "model")

    def evaluations() -> Iterator[tuple[dict[str, float], list[dict[str, Any]]]]:
        for score, cost in [(0.0, 0.0), (1.0, 0.0), (5.0, 0.1), (9.0, 1.0), (2.0, 0.0)]:
            yield {"eval/score": score, "eval/kl": cost}, []

    held = settings(kl=kl, keep=Keep.best, evaluate_every=1, save_every=1)
    script = evaluations()
    monkeypatch.setattr(evaluation, "evaluate", lambda *args: next(script))
    final = run(held, parents("llama"), tmp_path / "whole")
    assert (final["eval/best_step"], final["eval/score"]) == (2, 5.0)
    assert same(weights(tmp_path / "whole" / "model"), expected)

    calls = iter(range(100))
    real_update = ppo.update

    def dies_in_the_fourth(*args: Any, **kwargs: Any) -> dict[str, float]:
        if next(calls) == 3:
            raise KeyboardInterrupt
        return real_update(*args, **kwargs)

    script = evaluations()
    monkeypatch.setattr(ppo, "update", dies_in_the_fourth)
    with pytest.raises(KeyboardInterrupt):
        run(held, parents("llama"), tmp_path / "stopped")
    assert run(held, parents("llama"), tmp_path / "stopped", resume=True)["eval/best_step"] == 2
    assert same(weights(tmp_path / "stopped" / "model"), expected)


def test_best_policy_is_the_one_of_the_best_evaluation(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    chosen = {"episodes": 24 * 16, "kl": KLConfig(coef=0.05), "evaluate_every": 4, "save_every": 100}
    final = run(settings(keep=Keep.best, **chosen), parents("llama"), tmp_path)
    evaluated = {row["step"]: row["eval/score"] - 0.05 * row["eval/kl"] for row in logged(tmp_path) if "eval/kl" in row}
    assert final["eval/best_step"] == max(evaluated, key=lambda step: evaluated[step]) > 0
    assert final["eval/score"] - 0.05 * final["eval/kl"] == max(evaluated.values())
    assert not same(weights(tmp_path / "model"), weights(parents("llama")["policy"]))


@pytest.mark.parametrize("rank", [0, 4])
def test_frozen_weights_stay_and_have_no_optimizer_state(
    rank: int, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    config = settings(episodes=32, evaluate_every=0, ema_decay=0.5)
    config.model.freeze = FreezeConfig(names=["embed_tokens", "mlp"], first_layers=1)
    config.model.lora = LoraConfig(r=rank)
    run(config, parents("llama"), tmp_path)
    for role, folder in (("policy", "model"), ("reward_model", "value_model")):
        before, after = weights(parents("llama")[role]), weights(tmp_path / folder)
        moved = {name for name in before if not torch.equal(before[name], after[name])}
        assert moved
        assert not [name for name in moved if "embed_tokens" in name or "mlp" in name or "layers.0." in name]
    checkpoint = load_file(tmp_path / "checkpoints" / "step-2" / "policy.safetensors")
    optimizer = load_file(tmp_path / "checkpoints" / "step-2" / "policy_optimizer.safetensors")
    assert checkpoint
    assert not [name for name in checkpoint if "mlp" in name or "layers.0." in name]
    assert {name.rpartition("/")[0] for name in optimizer} == checkpoint.keys()


@pytest.mark.parametrize(("architecture", "rank"), [("llama", 0), ("gpt2", 0), ("llama", 4)])
def test_shared_value_head_trains_the_policy_s_trunk_and_loads_as_a_value_model(
    architecture: str, rank: int, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    found = {"policy": parents(architecture)["policy"], "reward_model": parents(architecture)["reward_model"]}
    policies = []
    for coef in (1e-3, 1.0):
        config = settings(episodes=32, evaluate_every=0, value_head=ValueHead.shared, value_coef=coef)
        config.model.lora = LoraConfig(r=rank)
        run(config, found, tmp_path / str(coef))
        policies.append(weights(tmp_path / str(coef) / "model"))
    assert not same(*policies)
    value_model = weights(tmp_path / "1.0" / "value_model")
    assert bool((value_model["score.weight"] != 0).all())
    assert all(torch.equal(policies[1][name], tensor) for name, tensor in value_model.items() if name != "score.weight")
    assert AutoModelForSequenceClassification.from_pretrained(tmp_path / "1.0" / "value_model").config.num_labels == 1
    reused = settings(episodes=16, evaluate_every=0)
    run(reused, {**found, "value_model": tmp_path / "1.0" / "value_model"}, tmp_path / "reused")


def test_shared_value_head_resumes_with_the_same_bits(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = settings(value_head=ValueHead.shared, save_every=1)
    run(config, parents("llama"), tmp_path / "whole")
    calls = iter(range(100))
    real_update = ppo.update

    def dies_in_the_third(*args: Any, **kwargs: Any) -> dict[str, float]:
        if next(calls) == 2:
            raise KeyboardInterrupt
        return real_update(*args, **kwargs)

    monkeypatch.setattr(ppo, "update", dies_in_the_third)
    with pytest.raises(KeyboardInterrupt):
        run(config, parents("llama"), tmp_path / "stopped")
    run(config, parents("llama"), tmp_path / "stopped", resume=True)
    for name in ("model", "value_model"):
        assert same(weights(tmp_path / "whole" / name), weights(tmp_path / "stopped" / name))


@pytest.mark.parametrize("advantage", [Advantage.rloo, Advantage.group])
def test_advantages_against_the_prompt_s_other_responses_learn_without_a_value_model(
    advantage: Advantage, parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    found = parents("llama")
    chosen = {"advantage": advantage, "samples_per_prompt": 4, "kl": KLConfig(coef=0.0)}
    run(settings(episodes=24 * 48, batch_size=48, evaluate_every=0, save_every=24, **chosen), found, tmp_path)
    rows = logged(tmp_path)
    assert sum(r["objective/score"] for r in rows[-3:]) / 3 > sum(r["objective/score"] for r in rows[:3]) / 3 + 0.5
    assert not any(name.startswith("value/") or "value_" in name for row in rows for name in row)
    assert not (tmp_path / "value_model").exists()
    assert not list((tmp_path / "checkpoints").glob("*/value_model*"))


def test_each_prompt_is_answered_as_often_as_asked_and_side_by_side(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = []
    real = ppo.roll_out
    monkeypatch.setattr(
        ppo, "roll_out", lambda roles, engine, asked, **kw: seen.append(asked) or real(roles, engine, asked, **kw)
    )
    run(settings(episodes=32, samples_per_prompt=4, evaluate_every=0), parents("llama"), tmp_path)
    ids = [[prompt.prompt.id for prompt in asked] for asked in seen]
    assert [len(batch) for batch in ids] == [16, 16]
    assert all(batch == [i for i in batch[::4] for _ in range(4)] for batch in ids)
    assert len(set(ids[0] + ids[1])) == 8


def test_value_model_is_trained_alone_before_the_policy_moves(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    kl = KLConfig(coef=0.1, target=1.0, horizon=50)
    run(settings(value_warmup_iterations=2, kl=kl, evaluate_every=0, ema_decay=0.9), parents("llama"), tmp_path)
    rows = logged(tmp_path)
    assert [row["objective/kl"] == 0 for row in rows] == [True, True, True, False]
    assert ["policy/loss" in row for row in rows] == [False, False, True, True]
    assert all("value/loss" in row for row in rows)
    assert rows[1]["value/explained_variance"] != rows[0]["value/explained_variance"]
    assert rows[2]["kl/coef"] == 0.1  # the controller does not take the resting policy's KL for its doing


def test_the_last_batch_is_whole_when_episodes_are_no_multiple(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path
) -> None:
    run(settings(episodes=33, evaluate_every=0), parents("llama"), tmp_path)
    assert [row["step"] for row in logged(tmp_path)] == [1, 2, 3]


def test_several_sources_are_added_with_their_weights_and_logged_by_name(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_length_score(tmp_path, monkeypatch)
    given = parents("llama")
    config = settings(
        episodes=32,
        reward_models={"second": str(given["reward_model"])},
        reward_fn="stage_score:score",
        reward_weights={"second": 0.5, "reward_fn": -2.0},
    )
    run(config, {**given, "reward_models/second": given["reward_model"]}, tmp_path / "run")
    for row in logged(tmp_path / "run")[1:]:
        one, two, three = (row[f"objective/score_{name}"] for name in ("reward_model", "second", "reward_fn"))
        assert one == pytest.approx(two)
        assert three >= 1
        assert row["objective/score"] == pytest.approx(one + 0.5 * two - 2.0 * three, rel=1e-5)
    final = logged(tmp_path / "run")[-1]
    assert {"eval/score", "eval/score_reward_model", "eval/score_second", "eval/score_reward_fn"} <= final.keys()
    sample = json.loads((tmp_path / "run" / "samples.jsonl").read_text().splitlines()[0])
    assert sample["score_reward_fn"] == len(sample["response"]) + 1


def test_a_function_alone_trains_the_policy_and_a_value_model_with_a_fresh_head(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_length_score(tmp_path, monkeypatch)
    policy = parents("llama")["policy"]
    config = settings(episodes=32, reward_fn="stage_score:score")
    run(config, {"policy": policy, "value_model": policy}, tmp_path / "run")
    rows = logged(tmp_path / "run")
    assert rows[1]["objective/score"] > 1
    assert not any(name.startswith("objective/score_") for row in rows for name in row)
    assert not same(weights(tmp_path / "run" / "model"), weights(policy))
    # Values of a head of zeros are 0, so the first returns are nothing but the rewards.
    assert rows[1]["value/explained_variance"] == 0
    assert float(weights(tmp_path / "run" / "value_model")["score.weight"].abs().sum()) > 0


def write_length_score(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A module stage_score in `folder`: a response's length and one."""
    source = "def score(prompts, responses, records):\n    return [len(r) + 1.0 for r in responses]\n"
    (folder / "stage_score.py").write_text(source)
    monkeypatch.syspath_prepend(str(folder))
    monkeypatch.delitem(sys.modules, "stage_score", raising=False)


def test_a_reward_model_whose_bias_was_never_set_is_one_line_and_ours_is_trusted(
    parents: Callable[[str], dict[str, Path]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    given = parents("gpt2")
    reward_model: Any = load_reward_model(str(given["reward_model"]), ModelConfig())
    tokenizer = load_tokenizer(str(given["reward_model"]))
    with torch.no_grad():  # every score goes up by 100
        weight = reward_model.score.weight[0]
        reward_model.base_model.ln_f.bias += 100 * weight / weight.square().sum()
    foreign = tmp_path / "reward" / "model"
    save_model(reward_model, tokenizer, foreign)
    config = settings(episodes=16, evaluate_every=0)

    def lines(reward_model: Path, name: str) -> list[str]:
        caplog.clear()
        with caplog.at_level("WARNING", logger="rlhf"):
            run(config, {**given, "reward_model": reward_model, "value_model": reward_model}, tmp_path / name)
        return [record.getMessage() for record in caplog.records if "bias" in record.getMessage()]

    (line,) = lines(foreign, "foreign")
    assert f"reward_model ({foreign}) gives demonstrations " in line
    mean = float(line.partition("demonstrations ")[2].partition(" ")[0])
    assert 90 < mean < 110
    StageFolder(foreign.parent).write_manifest(stage="reward", metrics={"reward/bias": 100.0})
    assert lines(foreign, "ours") == []
    with torch.no_grad():
        reward_model.base_model.ln_f.bias -= mean * weight / weight.square().sum()
    save_model(reward_model, tokenizer, tmp_path / "centred")
    assert lines(tmp_path / "centred", "centred") == []

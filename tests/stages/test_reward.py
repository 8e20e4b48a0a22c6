from __future__ import annotations

import json
import logging
import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSequenceClassification, LlamaForSequenceClassification

from rlhf.chain.source import load_source
from rlhf.config import (
    Config,
    DataConfig,
    DataSourceName,
    DType,
    FreezeConfig,
    LoraConfig,
    ModelConfig,
    OptimConfig,
    Quantization,
    RewardConfig,
    RolloutConfig,
    TrackerConfig,
)
from rlhf.data.records import Demonstration, Ranking, Sampler
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models import adapters
from rlhf.models.batches import pad_right
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.scores import sequence_scores
from rlhf.models.tokenizers import load_tokenizer
from rlhf.reward.trainer import KWayTrainer, build_trainer
from rlhf.runtime import checkpoints
from stages import reward as stage
from tests.support.fakes import ListSource, make_context, prompt
from tests.support.tiny import ARCHITECTURES, needs_bitsandbytes, save_tiny_model

WORDS = ["one", "two", "three", "four", "five"]


def toy_rankings(count: int, seed: int = 0) -> list[Ranking]:
    """More "yes" is better; K is 2 to 5, ties happen, and the text's length says nothing."""
    rng = random.Random(seed)
    rankings = []
    for i in range(count):
        worth = [rng.randint(0, 4) for _ in range(rng.randint(2, 5))]
        texts = []
        for good in worth:
            words = ["yes"] * good + [rng.choice(WORDS) for _ in range(rng.randint(1, 6))]
            rng.shuffle(words)
            texts.append(" ".join(words))
        order = sorted(set(worth), reverse=True)
        ranks = tuple(order.index(value) for value in worth)
        floats = tuple(float(value) for value in worth)
        rankings.append(Ranking(prompt("say yes " + rng.choice(WORDS), i), tuple(texts), ranks, floats, floats))
    return rankings


def toy_demonstrations(count: int) -> list[Demonstration]:
    return [Demonstration(prompt(f"say {word}", i), f"yes yes {word}") for i, word in enumerate(WORDS * count)][:count]


def make_config(model: str, **settings: Any) -> Config:
    chosen = {"epochs": 1, "batch_size": 8, "micro_batch_size_per_device": 8, "optim": OptimConfig(lr=5e-3), **settings}
    return Config(
        model=ModelConfig(path=model),
        reward=RewardConfig(**chosen),
        rollout=RolloutConfig(max_new_tokens=6),
        tracker=TrackerConfig(progress=False),
    )


def make(tmp_path: Path, config: Config, count: int = 40, name: str = "reward") -> Any:
    data = ListSource(
        toy_demonstrations(20),
        toy_demonstrations(5),
        train_rankings=toy_rankings(count),
        held_out_rankings=toy_rankings(20, 1),
    )
    return make_context(tmp_path / name, config, {"policy": config.model.path}, data)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForSequenceClassification.from_pretrained(path).state_dict())


def test_a_simple_preference_is_recovered(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama", chat_template=True)
    context = make(tmp_path, make_config(base, epochs=3, evaluate_every=20), count=160)
    metrics = stage.run(context)
    assert metrics["eval/accuracy"] > 0.9
    assert metrics["eval/accuracy_gold"] == metrics["eval/accuracy"]
    assert metrics["eval/accuracy"] > metrics["eval/accuracy_longest"]
    assert metrics["eval/margin"] > 0
    assert 0 <= metrics["eval/calibration"] <= 0.5
    assert {f"eval/accuracy_k{k}" for k in (2, 3, 4, 5)} <= metrics.keys()
    assert metrics["eval/accuracy_margin_high"] >= metrics["eval/accuracy_margin_low"]
    assert len(context.tracker.values("eval/accuracy")) == 3
    assert {"prompt", "response", "rank", "score", "gold_score"} == context.tracker.sampled[-1][1][0].keys()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("pad", [False, True])
def test_saved_model_scores_alike_in_plain_transformers(tmp_path: Path, architecture: str, pad: bool) -> None:
    base = save_tiny_model(tmp_path / "base", architecture, pad=pad, tied=pad)
    context = make(tmp_path, make_config(base), count=16)
    stage.run(context)
    folder = str(context.folder.model_dir)
    template = ChatTemplate(load_tokenizer(folder))
    sequences = [
        template.prompt_ids(ranking.prompt) + template.response_ids(text)
        for ranking in context.data.held_out_rankings[:4]
        for text in ranking.completions
    ]
    ours = sequence_scores(load_reward_model(folder, ModelConfig()), sequences, token_budget=64)
    plain = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    padded, lengths = pad_right(sequences, plain.config.pad_token_id, multiple_of=1)
    mask = (torch.arange(padded.shape[1]) < lengths[:, None]).long()
    with torch.no_grad():
        batched = plain(input_ids=padded, attention_mask=mask).logits[:, 0]
        single = torch.stack([plain(input_ids=torch.tensor([ids])).logits[0, 0] for ids in sequences])
    assert float(ours.std()) > 1e-3
    torch.testing.assert_close(ours, batched, atol=1e-4, rtol=1e-4)
    torch.testing.assert_close(ours, single, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_demonstrations_score_zero_on_average_in_the_saved_model(tmp_path: Path, architecture: str) -> None:
    base = save_tiny_model(tmp_path / "base", architecture)
    context = make(tmp_path, make_config(base, epochs=2))
    metrics = stage.run(context)
    assert abs(metrics["reward/demonstration_score"]) < 1e-4
    assert abs(metrics["reward/bias"]) > 1e-3
    assert metrics["reward/bias_residual"] <= 0.1 * abs(metrics["reward/bias"])
    if architecture in ("gpt2", "gpt_neox"):
        assert metrics["reward/bias_residual"] == 0


def test_interrupted_run_ends_like_one_that_never_stopped_and_keeps_its_rankings(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=2)

    def write(sample: Sampler) -> list[Ranking]:
        prompts = [ranking.prompt for ranking in toy_rankings(24)]
        texts = sample(prompts, [3] * len(prompts))
        calls.append(len(texts))
        return [Ranking(p, tuple(t), (0, 1, 2)) for p, t in zip(prompts, texts, strict=True)]

    calls: list[int] = []
    whole, broken = make(tmp_path, config, name="whole"), make(tmp_path, config, name="broken")
    whole.data.train_rankings = broken.data.train_rankings = write
    stage.run(whole)
    log = broken.tracker.log

    def log_until(step: int, metrics: Any) -> None:
        log(step, metrics)
        if step == 5:
            raise KeyboardInterrupt

    broken.tracker.log = log_until
    with pytest.raises(KeyboardInterrupt):
        stage.run(broken)
    found = checkpoints.newest(broken.folder.checkpoints_dir, "checkpoint")
    assert found is not None
    assert found[0] == 3
    broken.tracker.log, broken.resume = log, True
    stage.run(broken)
    assert len(calls) == 2
    a, b = weights(whole.folder.model_dir), weights(broken.folder.model_dir)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert broken.tracker.values("train/loss") == whole.tracker.values("train/loss")


def test_micro_batches_do_not_change_the_step(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    losses, trained = [], []
    for micro in (8, 2):
        optim = OptimConfig(lr=1e-3, eps=1e-3)
        context = make(
            tmp_path, make_config(base, micro_batch_size_per_device=micro, optim=optim), name=f"micro{micro}"
        )
        stage.run(context)
        losses.append(context.tracker.values("train/loss"))
        trained.append(weights(context.folder.model_dir))
    assert losses[0] == pytest.approx(losses[1], rel=1e-4)
    for name in trained[0]:
        torch.testing.assert_close(trained[0][name], trained[1][name], atol=1e-4, rtol=1e-3)


def test_padding_between_completions_is_left_out_and_changes_no_step(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    rng = random.Random(0)
    rankings = [
        Ranking(prompt("say yes", i), tuple(" ".join(rng.choices(WORDS, k=k)) for k in (30, 1, 2, 3)), (0, 1, 2, 3))
        for i in range(16)
    ]
    losses, tokens = [], []
    for name in ("bucketed", "whole"):
        context = make(tmp_path, make_config(base, optim=OptimConfig(lr=1e-3, eps=1e-3)), name=name)
        context.data.train_rankings = rankings
        if name == "whole":
            monkeypatch.setattr(KWayTrainer, "_buckets", lambda self, lengths: [torch.arange(len(lengths))])
        seen = tokens_run(monkeypatch)
        stage.run(context)
        losses.append(context.tracker.values("train/loss"))
        tokens.append(sum(seen))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    assert tokens[0] < 0.6 * tokens[1]


def tokens_run(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows by the size of input_ids, padding included, at each training pass of a Llama classifier."""
    seen: list[int] = []
    forward = LlamaForSequenceClassification.forward

    def counted(self: Any, input_ids: torch.Tensor, **kwargs: Any) -> Any:
        seen.append(input_ids.numel())
        return forward(self, input_ids=input_ids, **kwargs)

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", counted)
    return seen


@pytest.mark.parametrize(("asked", "used"), [(None, "eager"), ("sdpa", "sdpa")])
def test_attention_on_a_cpu_is_plain_products_unless_asked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: str | None, used: str
) -> None:
    trained = []

    def build(context: Any, model: Any, *rest: Any) -> Any:
        trained.append(model.config._attn_implementation)
        return build_trainer(context, model, *rest)

    config = make_config(save_tiny_model(tmp_path / "base", "llama"))
    config.model.attn_implementation = asked
    monkeypatch.setattr(stage, "build_trainer", build)
    stage.run(make(tmp_path, config, count=8))
    assert trained == [used]


def test_first_loss_is_log_two_because_the_head_starts_at_zero(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base))
    stage.run(context)
    assert context.tracker.values("train/loss")[0] == pytest.approx(0.693147, rel=1e-4)


def test_margin_raises_the_loss_of_scores_that_do_not_differ(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base, margin=True))
    stage.run(context)
    assert context.tracker.values("train/loss")[0] > 1.0


def test_tied_rankings_are_dropped_and_counted(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base), count=16)
    before = stage.run(context)
    context = make(tmp_path, make_config(base), count=16, name="more")
    context.data.train_rankings += [Ranking(prompt("tie"), ("yes", "no"), (1, 1))] * 3
    metrics = stage.run(context)
    assert metrics["data/tied_rankings"] == before["data/tied_rankings"] + 3
    assert metrics["data/rankings"] == before["data/rankings"]


def test_only_tied_rankings_are_refused(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base))
    context.data.train_rankings = [Ranking(prompt("tie"), ("yes", "no"), (0, 0))] * 3
    with pytest.raises(UserError, match="every completion is tied"):
        stage.run(context)


def test_lora_trains_adapters_and_head_and_saves_a_whole_model(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=3)
    config.model.lora = LoraConfig(r=4)
    context = make(tmp_path, config, count=80)
    metrics = stage.run(context)
    trained = weights(context.folder.model_dir)
    untrained = load_reward_model(base, ModelConfig(), fresh_head=True).state_dict()
    assert trained.keys() == untrained.keys()
    changed = {name for name in trained if not torch.equal(trained[name], untrained[name])}
    assert "score.weight" in changed
    assert all("_proj" in name or name == "score.weight" for name in changed)
    assert len(changed) > 1
    assert metrics["eval/accuracy"] > 0.6


def test_frozen_layers_stay_as_they_were(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=2)
    config.model.freeze = FreezeConfig(first_layers=1)
    context = make(tmp_path, config)
    stage.run(context)
    trained, untrained = (
        weights(context.folder.model_dir),
        load_reward_model(base, ModelConfig(), fresh_head=True).state_dict(),
    )
    same = {name for name in trained if torch.equal(trained[name], untrained[name])}
    assert same == {name for name in trained if "layers.0." in name}


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
def test_lora_keeps_its_adapter_beside_the_merged_model(tmp_path: Path, dtype: DType) -> None:
    base = save_tiny_model(tmp_path / "base", "gpt2")
    config = make_config(base)
    config.model.lora, config.model.dtype = LoraConfig(r=4), dtype
    context = make(tmp_path, config, count=16)
    stage.run(context)
    sequences = [[5, 6, 7, 8], [9, 10, 11], [12, 13, 14, 15, 16]]
    merged = sequence_scores(load_reward_model(str(context.folder.model_dir), config.model), sequences)
    whole = json.loads((context.folder.model_dir / "adapter" / "adapter_config.json").read_text())["modules_to_save"]
    assert sorted(whole) == ["score", "transformer.ln_f"]
    policy = load_causal_lm(base, config.model)
    given = (load_tokenizer(base), Path(base), context.folder.model_dir, config.model)
    adapted = adapters.reward_model_on(policy, *given)
    assert adapted is not None
    assert float(merged.std()) > 1e-4
    error = (sequence_scores(adapted, sequences) - merged).abs().max()
    assert error < (1e-5 if dtype == DType.float32 else 0.05) * merged.abs().max()


@needs_bitsandbytes
def test_lora_on_a_quantized_base_saves_a_whole_model(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base)
    config.model.lora, config.model.quantization = LoraConfig(r=4), Quantization.int8
    context = make(tmp_path, config, count=16)
    metrics = stage.run(context)
    assert {t.dtype for t in weights(context.folder.model_dir).values()} == {torch.float32}
    assert abs(metrics["reward/demonstration_score"]) < 1e-3


def test_without_lora_there_is_no_adapter(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base), count=16)
    stage.run(context)
    assert not (context.folder.model_dir / "adapter").exists()


def test_bfloat16_trains_and_is_what_the_saved_weights_have(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=3)
    config.model.dtype = DType.bfloat16
    context = make(tmp_path, config, count=80)
    metrics = stage.run(context)
    model = AutoModelForSequenceClassification.from_pretrained(context.folder.model_dir)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}
    assert metrics["eval/accuracy"] > 0.7
    assert abs(metrics["reward/demonstration_score"]) < 0.1


def test_policy_folder_stays_as_it_was(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    before = {path.name: path.read_bytes() for path in Path(base).iterdir()}
    stage.run(make(tmp_path, make_config(base), count=16))
    assert {path.name: path.read_bytes() for path in Path(base).iterdir()} == before


@pytest.mark.parametrize("worth", [{"ranks": [1, 0]}, {"scores": [0.5, 3]}])
def test_a_file_of_rankings_alone_trains_a_reward_model(
    tmp_path: Path, worth: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "rankings.jsonl"
    rows = [{"prompt": f"say {i % 7} {i}", "completions": ["bad", "good good"], **worth} for i in range(60)]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=1)
    config.data = DataConfig(source=DataSourceName.jsonl, path=str(path), cache=str(tmp_path / "cache"))
    context = make_context(tmp_path / "reward", config, {"policy": base}, load_source(config.data, 0))  # type: ignore[arg-type]
    with caplog.at_level(logging.INFO, logger="rlhf"):
        metrics = stage.run(context)
    assert metrics["reward/demonstration_score"] == pytest.approx(0.0, abs=0.05)
    assert metrics["eval/accuracy"] == 1.0
    assert any("no demonstrations" in message and "best-ranked" in message for message in caplog.messages)

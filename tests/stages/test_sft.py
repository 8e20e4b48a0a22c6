from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config import (
    Config,
    DType,
    FreezeConfig,
    LoraConfig,
    LossOn,
    ModelConfig,
    OnBadRow,
    OptimConfig,
    Quantization,
    RolloutConfig,
    SelectBy,
    SFTConfig,
    SubsetRule,
    TrackerConfig,
)
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import IGNORED, Encoder
from rlhf.data.records import Demonstration, Message, Prompt, Role, Split
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.models.freezing import disable_dropout
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.runtime import checkpoints
from rlhf.sft.held_out import HeldOutSampler
from rlhf.sft.rows import labelled, pretraining_rows
from rlhf.sft.subset import chosen_subset
from rlhf.sft.trainer import build_trainer, labelled_loss
from stages import sft as stage
from tests.support.fakes import ListSource, make_context, prompt
from tests.support.tiny import ARCHITECTURES, needs_bitsandbytes, save_tiny_model

COLOURS = ["red", "blue", "green", "grey"]


def toy_demonstrations(count: int, seed: int = 0) -> list[Demonstration]:
    """The answer repeats the prompt's last word, after filler of varying length."""
    rng = random.Random(seed)
    rows = []
    for i in range(count):
        colour = rng.choice(COLOURS)
        rows.append(Demonstration(prompt("say " + "so " * rng.randint(0, 6) + colour, i), f"{colour} {colour}"))
    return rows


def make_config(model: str, **sft_settings: Any) -> Config:
    settings = {"epochs": 2, "batch_size": 8, "micro_batch_size_per_device": 8, "optim": OptimConfig(lr=1e-2)}
    return Config(
        model=ModelConfig(path=model),
        sft=SFTConfig(**{**settings, **sft_settings}),
        rollout=RolloutConfig(max_new_tokens=6),
        tracker=TrackerConfig(progress=False),
    )


def make(tmp_path: Path, config: Config, count: int = 64, name: str = "sft") -> Any:
    data = ListSource(toy_demonstrations(count), toy_demonstrations(16, seed=1), documents=["one two three four"] * 5)
    return make_context(tmp_path / name, config, {"base": config.model.path}, data)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return dict(AutoModelForCausalLM.from_pretrained(path).state_dict())


def test_held_out_loss_falls_and_model_loads_with_plain_from_pretrained(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama", chat_template=True)
    context = make(tmp_path, make_config(base, epochs=4))
    metrics = stage.run(context)
    losses = context.tracker.values("eval/loss")
    assert len(losses) == 4
    assert metrics["eval/loss"] == min(losses) < 0.5 * losses[0] or metrics["eval/loss"] < 1.0
    trained, untrained = weights(context.folder.model_dir), weights(Path(base))
    assert all(not torch.equal(trained[name], untrained[name]) for name in trained)
    assert load_tokenizer(str(context.folder.model_dir)).chat_template
    assert {"train/loss", "optim/lr", "train/tokens_per_second"} <= set().union(*(m for _, m in context.tracker.logged))
    assert [step for step, _ in context.tracker.sampled] == [8, 16, 24, 32]
    assert set(context.tracker.sampled[0][1][0]) == {"prompt", "response", "demonstration"}


def test_only_response_and_end_token_have_labels_in_the_collated_batch(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "gpt2")  # its pad token is its end token
    config = make_config(base)
    context = make(tmp_path, config)
    tokenizer = load_tokenizer(base)
    template = ChatTemplate(tokenizer)
    demonstrations = context.data.demonstrations(Split.train)[:8]
    encoded = Encoder(template, config.data, BadRows(OnBadRow.refuse, None)).demonstrations(demonstrations)
    rows = labelled(encoded)
    built = build_trainer(
        context,
        load_causal_lm(base, config.model),
        tokenizer,
        rows,
        rows,
        HeldOutSampler(context, template, [], None),
    )
    batch = next(iter(built.get_train_dataloader()))
    seen = 0
    for ids, labels, mask in zip(batch["input_ids"], batch["labels"], batch["attention_mask"], strict=True):
        length = int(mask.sum())
        demonstration = next(d for d in encoded if d.prompt_ids + d.response_ids == ids[:length].tolist())
        seen += 1
        start = len(demonstration.prompt_ids)
        for position, label in enumerate(labels.tolist()):
            expected = int(ids[position]) if start <= position < length else -100
            assert label == expected
        assert labels[length - 1] == tokenizer.eos_token_id
    assert seen == 8


def test_interrupted_run_ends_like_one_that_never_stopped(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=2, select_by=SelectBy.last, residual_dropout=0.1)
    whole = make(tmp_path, config, name="whole")
    stage.run(whole)

    class StopError(Exception):
        pass

    broken = make(tmp_path, config, name="broken")
    log = broken.tracker.log

    def log_until(step: int, metrics: Any) -> None:
        log(step, metrics)
        if step == 11:
            raise StopError

    broken.tracker.log = log_until
    with pytest.raises(StopError):
        stage.run(broken)
    assert checkpoints.newest(broken.folder.checkpoints_dir, "checkpoint")[0] == 8
    (broken.folder.checkpoints_dir / "checkpoint-11").mkdir()  # half-written when the process died
    broken.tracker.log = log
    broken.resume = True
    stage.run(broken)
    a, b = weights(whole.folder.model_dir), weights(broken.folder.model_dir)
    assert all(torch.equal(a[name], b[name]) for name in a)
    assert broken.tracker.values("train/loss") == whole.tracker.values("train/loss")


def test_a_run_that_dies_before_an_epoch_s_evaluation_makes_it_when_it_goes_on(tmp_path: Path) -> None:
    config = make_config(save_tiny_model(tmp_path / "base", "llama"), select_by=SelectBy.last)
    config.run.save_minutes = 1e-9  # after every step
    whole, broken = make(tmp_path, config, name="whole"), make(tmp_path, config, name="broken")
    stage.run(whole)
    log = broken.tracker.log

    def die_in_evaluation(step: int, metrics: Any) -> None:
        if step == 8 and "eval/loss" in metrics:
            raise KeyboardInterrupt
        log(step, metrics)

    broken.tracker.log = die_in_evaluation
    with pytest.raises(KeyboardInterrupt):
        stage.run(broken)
    assert checkpoints.newest(broken.folder.checkpoints_dir, "checkpoint")[0] == 7
    broken.tracker.log = log
    broken.resume = True
    stage.run(broken)
    for name in ("train/loss", "eval/loss"):
        assert broken.tracker.values(name) == whole.tracker.values(name)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("tied", [False, True])
def test_every_architecture_trains(tmp_path: Path, architecture: str, tied: bool) -> None:
    base = save_tiny_model(tmp_path / "base", architecture, tied=tied, bos=architecture == "llama")
    context = make(tmp_path, make_config(base, epochs=1, residual_dropout=0.2), count=16)
    metrics = stage.run(context)
    assert metrics["train/steps"] == 2
    trained, untrained = weights(context.folder.model_dir), weights(Path(base))
    assert trained.keys() == untrained.keys()
    assert any(not torch.equal(trained[name], untrained[name]) for name in trained)


def test_lora_changes_only_what_it_adapts_and_saves_a_whole_model(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "gpt2", tied=True)
    config = make_config(base, epochs=3)
    config.model.lora = LoraConfig(r=4)
    context = make(tmp_path, config)
    metrics = stage.run(context)
    trained, untrained = weights(context.folder.model_dir), weights(Path(base))
    assert trained.keys() == untrained.keys()
    changed = {name for name in trained if not torch.equal(trained[name], untrained[name])}
    assert changed
    assert all("attn" in name or "mlp" in name for name in changed)
    model = load_causal_lm(str(context.folder.model_dir), ModelConfig())
    assert metrics["eval/loss"] == pytest.approx(_held_out_loss(model, context), rel=1e-4)


def test_frozen_layers_stay_as_they_were(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=1)
    config.model.freeze = FreezeConfig(first_layers=1)
    context = make(tmp_path, config, count=16)
    stage.run(context)
    trained, untrained = weights(context.folder.model_dir), weights(Path(base))
    same = {name for name in trained if torch.equal(trained[name], untrained[name])}
    assert same == {name for name in trained if "layers.0." in name}


def _held_out_loss(model: Any, context: Any) -> float:
    """Mean over response tokens, one sequence at a time, without padding."""
    template = ChatTemplate(load_tokenizer(str(context.parents["base"])))
    total, count = 0.0, 0
    for demonstration in context.data.demonstrations(Split.evaluation):
        prompt_ids = template.prompt_ids(demonstration.prompt)
        response_ids = template.response_ids(demonstration.response)
        with torch.no_grad():
            logits = model(torch.tensor([prompt_ids + response_ids])).logits[0].log_softmax(-1)
        for position, token in enumerate(response_ids, start=len(prompt_ids)):
            total -= float(logits[position - 1, token])
            count += 1
    return total / count


@needs_bitsandbytes
def test_lora_on_a_quantized_base_trains_in_float32_and_saves_a_whole_model(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base)
    config.model.lora, config.model.quantization = LoraConfig(r=4), Quantization.int8
    context = make(tmp_path, config)
    seen: set[torch.dtype] = set()
    samples = HeldOutSampler.__call__

    def watch(self: Any, model: Any, step: int) -> float | None:
        seen.update(p.dtype for p in model.parameters() if p.requires_grad)
        return samples(self, model, step)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(HeldOutSampler, "__call__", watch)
        stage.run(context)
    losses = context.tracker.values("eval/loss")
    assert losses[-1] < losses[0]
    assert seen == {torch.float32}
    assert {t.dtype for t in weights(context.folder.model_dir).values()} == {torch.float32}


def test_held_out_loss_is_the_mean_over_response_tokens(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "qwen2")
    context = make(tmp_path, make_config(base, micro_batch_size_per_device=4))
    metrics = stage.run(context)
    model = load_causal_lm(str(context.folder.model_dir), ModelConfig())
    assert metrics["eval/loss"] == pytest.approx(_held_out_loss(model, context), rel=1e-4)


def test_packing_gives_each_row_the_loss_it_has_alone(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(
        base,
        packing=True,
        select_by=SelectBy.last,
        optim=OptimConfig(lr=1e-12),
        epochs=1,
        batch_size=2,
        micro_batch_size_per_device=2,
    )
    context = make(tmp_path, config, count=16)
    context.data.held_out_demonstrations = context.data.train_demonstrations
    metrics = stage.run(context)
    assert metrics["train/steps"] == 1
    model = load_causal_lm(base, ModelConfig())
    assert metrics["train/loss"] == pytest.approx(_held_out_loss(model, context), rel=1e-4)


def test_learning_rate_falls_along_a_cosine_to_the_minimum(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base, optim=OptimConfig(lr=1e-3, min_lr_ratio=0.1)))
    stage.run(context)
    rates = context.tracker.values("optim/lr")
    assert rates[0] == pytest.approx(1e-3)
    assert rates == sorted(rates, reverse=True)
    assert 1e-4 <= rates[-1] < 1.2e-4


def test_pretraining_text_is_the_stated_share_of_rows_with_loss_on_every_token(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base, pretraining_fraction=0.2, epochs=1), count=32)
    metrics = stage.run(context)
    assert metrics["data/pretraining_rows"] == 8
    encoder = Encoder(ChatTemplate(load_tokenizer(base)), context.config.data, BadRows(OnBadRow.refuse, None))
    row = pretraining_rows(context, encoder, 4)[0]
    assert row["labels"] == row["input_ids"]


@pytest.mark.parametrize("select_by", [SelectBy.validation_loss, SelectBy.last])
def test_selection_keeps_the_checkpoint_it_names(tmp_path: Path, select_by: SelectBy) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    # So few rows and so high a rate that the held-out loss rises again.
    config = make_config(base, epochs=6, select_by=select_by, optim=OptimConfig(lr=3e-2, min_lr_ratio=1.0))
    context = make(tmp_path, config, count=8)
    metrics = stage.run(context)
    losses = context.tracker.values("eval/loss")
    assert losses[-1] > min(losses)
    assert metrics["eval/loss"] == (min(losses) if select_by == SelectBy.validation_loss else losses[-1])
    model = load_causal_lm(str(context.folder.model_dir), ModelConfig())
    assert metrics["eval/loss"] == pytest.approx(_held_out_loss(model, context), rel=1e-3)


def test_selection_by_reward_model_keeps_the_best_scoring_checkpoint(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    scorer = load_reward_model(base, ModelConfig(), fresh_head=True)
    torch.nn.init.normal_(scorer.score.weight)
    save_model(scorer, load_tokenizer(base), tmp_path / "reward")
    config = make_config(base, epochs=3, select_by=SelectBy.reward_model, reward_model=str(tmp_path / "reward"))
    context = make(tmp_path, config)
    metrics = stage.run(context)
    scores = context.tracker.values("eval/score")
    assert len(scores) == 3
    assert metrics["eval/score"] == max(scores)
    assert "score" in context.tracker.sampled[0][1][0]


def test_reward_model_of_another_template_is_refused(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    other = save_tiny_model(tmp_path / "other", "llama", chat_template=True)
    config = make_config(base, select_by=SelectBy.reward_model, reward_model=other)
    with pytest.raises(UserError, match=r"sft\.reward_model=.* chat template"):
        stage.run(make(tmp_path, config))


def test_loss_that_is_not_finite_stops_before_the_weights_move(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    model = AutoModelForCausalLM.from_pretrained(base)
    with torch.no_grad():
        model.lm_head.weight[:] = float("nan")
    model.save_pretrained(base)
    context = make(tmp_path, make_config(base))
    with pytest.raises(UserError, match=r"gradient of sft is not finite at step 1 .* is nan\).*sft\.optim\.lr"):
        stage.run(context)
    assert not context.folder.model_dir.exists()


def test_bfloat16_is_what_the_saved_weights_have(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=1)
    config.model.dtype = DType.bfloat16
    context = make(tmp_path, config, count=16)
    stage.run(context)
    model = AutoModelForCausalLM.from_pretrained(context.folder.model_dir)
    assert {p.dtype for p in model.parameters()} == {torch.bfloat16}


def test_nothing_is_written_outside_the_stage_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    context = make(tmp_path, make_config(base, epochs=1), count=8)
    stage.run(context)
    assert list(work.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"base", "work", "sft"}
    assert not list(context.folder.path.rglob("README.md"))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_loss_at_labelled_positions_alone_has_the_gradient_of_the_whole(tmp_path: Path, architecture: str) -> None:
    model = load_causal_lm(save_tiny_model(tmp_path, architecture, tied=True), ModelConfig())
    disable_dropout(model)
    ids = torch.randint(1, 300, (3, 16), generator=torch.Generator().manual_seed(0))
    labels = ids.clone()
    labels[0, :5] = labels[1, 9:] = labels[2, :2] = IGNORED
    inputs = {"input_ids": ids, "attention_mask": torch.ones_like(ids), "labels": labels}
    loss, tokens = labelled_loss(model, inputs, model)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in model.parameters()]
    model.zero_grad()
    expected = model(**inputs).loss  # Transformers' mean over labelled positions
    expected.backward()
    assert tokens == int((labels[:, 1:] != IGNORED).sum())
    torch.testing.assert_close(loss / tokens, expected)
    for gradient, parameter in zip(gradients, model.parameters(), strict=True):
        torch.testing.assert_close(gradient / tokens, parameter.grad, atol=1e-6, rtol=1e-4)


def tasks_of(context: Any, settings: Any, *, rule: SubsetRule, judge: Any = None) -> list[tuple[str, int]]:
    """What is chosen of 12 demonstrations of three tasks, the first with nine: (task, number) in order."""
    template = ChatTemplate(load_tokenizer(context.config.model.path))
    demonstrations = [
        Demonstration(Prompt(f"{task}:{i}", (Message(Role.user, f"say {i}"),), task), "yes " * ((7 * i) % 11 + 1))
        for i, task in enumerate(["a"] * 9 + ["b"] * 2 + ["c"])
    ]
    encoder = Encoder(template, context.config.data, BadRows(OnBadRow.refuse, None))
    context.config.sft.subset, context.config.sft.subset_rule = settings, rule
    chosen = chosen_subset(context, encoder.demonstrations(demonstrations), judge)
    return [(d.prompt.task, int(d.prompt.id.split(":")[1])) for d in chosen]


def test_a_subset_holds_each_tasks_best_in_turn_and_keeps_their_order(tmp_path: Path) -> None:
    context = make(tmp_path, make_config(save_tiny_model(tmp_path / "base", "llama")))
    longest = tasks_of(context, 6, rule=SubsetRule.longest)
    # Lengths by number: a 1 8 4 11 7 3 10 6 2, b 9 5, c 1; a turn each, then a and b, then a.
    assert longest == [("a", 1), ("a", 3), ("a", 6), ("b", 9), ("b", 10), ("c", 11)]
    assert len(tasks_of(context, 12, rule=SubsetRule.longest)) == 12
    assert len(tasks_of(context, 50, rule=SubsetRule.longest)) == 12
    first = tasks_of(context, 6, rule=SubsetRule.random)
    assert tasks_of(context, 6, rule=SubsetRule.random) == first
    context.config.seed = 1
    assert tasks_of(context, 6, rule=SubsetRule.random) != first


def test_a_subset_by_reward_model_holds_what_scores_best(tmp_path: Path) -> None:
    context = make(tmp_path, make_config(save_tiny_model(tmp_path / "base", "llama")))

    def shortest_is_best(sequences: list[list[int]], device: Any) -> list[float]:
        return [-float(len(sequence)) for sequence in sequences]

    chosen = tasks_of(context, 3, rule=SubsetRule.reward_model, judge=shortest_is_best)
    assert chosen == [("a", 0), ("b", 10), ("c", 11)]


def test_training_on_a_subset_counts_what_it_trained_on(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    context = make(tmp_path, make_config(base, epochs=1, subset=24, subset_rule=SubsetRule.random))
    metrics = stage.run(context)
    assert metrics["data/demonstrations"] == 24
    assert metrics["train/steps"] == 3


def test_loss_on_all_turns_learns_more_tokens_than_on_the_last(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    talk = (Message(Role.user, "say red"), Message(Role.assistant, "red"), Message(Role.user, "say blue"))
    data = ListSource([Demonstration(Prompt(f"t:{i}", talk), "blue") for i in range(8)], toy_demonstrations(4))
    tokens = {}
    for loss_on in LossOn:
        config = make_config(base, epochs=1, loss_on=loss_on)
        context = make_context(tmp_path / loss_on.value, config, {"base": base}, data)
        tokens[loss_on] = stage.run(context)["data/loss_tokens"]
    template = ChatTemplate(load_tokenizer(base))
    assert tokens[LossOn.last] == 8 * len(template.response_ids("blue"))
    assert tokens[LossOn.all] == tokens[LossOn.last] + 8 * len(template.response_ids("red"))


def test_packing_says_how_full_its_rows_are(tmp_path: Path) -> None:
    base = save_tiny_model(tmp_path / "base", "llama")
    config = make_config(base, epochs=1, packing=True)
    config.data.max_prompt_tokens = config.data.max_response_tokens = 32
    metrics = stage.run(make(tmp_path, config))
    assert 0.5 < metrics["data/packing_efficiency"] <= 1


def test_packed_rows_warm_up_for_their_share_of_the_steps_that_there_are(tmp_path: Path) -> None:
    config = make_config(save_tiny_model(tmp_path / "base", "llama"), epochs=10, packing=True)
    config.sft.optim.warmup_ratio = 0.2
    config.sft.optim.min_lr_ratio = 0.0
    context = make(tmp_path, config)
    stage.run(context)
    rates = context.tracker.values("optim/lr")
    peak = rates.index(max(rates))
    assert max(rates) == pytest.approx(config.sft.optim.lr)
    assert peak == pytest.approx(0.2 * len(rates), abs=1)
    assert rates[-1] < 0.2 * max(rates)

"""PPO asks its engine for responses of the weights as they are at that moment, and closes it whatever happens."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.config import (
    Config,
    ModelConfig,
    OptimConfig,
    PPOConfig,
    RolloutConfig,
    RolloutEngineName,
    TrackerConfig,
    VLLMConfig,
)
from rlhf.data.records import Demonstration, Message, Prompt, Role
from rlhf.errors import UserError
from rlhf.models.load import load_reward_model
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.engines.hf import HFEngine
from rlhf.ppo.engines.start import open_engine
from rlhf.ppo.rollout import Rollout, generate
from rlhf.runtime.folder import StageFolder
from rlhf.training.context import StageContext
from stages import ppo
from tests.support.fakes import ListSource, MemoryTracker
from tests.support.tiny import save_tiny_model
from tests.support.tiny_ppo import EOS, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [4], [12, 13, 14]]


class FakeEngine:
    """Answers every prompt with two tokens, and remembers what it was told and when."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.weights: list[torch.Tensor] = []
        self.seeds: list[int] = []
        self.fail_at: int | None = None

    def sync(self, policy: Any) -> None:
        self.calls.append("sync")
        self.weights.append(next(iter(policy.parameters())).detach().clone())

    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        if len(self.seeds) == self.fail_at:
            raise RuntimeError("out of memory")
        self.calls.append("generate")
        self.seeds.append(seed)
        responses = [[7 + row, 0] for row in range(len(prompt_ids))]
        return Rollout(responses, [True for _ in prompt_ids], [[-1.0, -1.0] for _ in prompt_ids])

    def close(self) -> None:
        self.calls.append("close")


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> FakeEngine:
    made = FakeEngine()

    @contextmanager
    def open_fake(context: StageContext, roles: Any) -> Any:
        try:
            yield made
        finally:
            made.close()

    monkeypatch.setattr(ppo, "open_engine", open_fake)
    return made


def context_in(folder: Path, **ppo_values: Any) -> StageContext:
    config = Config(
        ppo=PPOConfig(
            **{
                "episodes": 16,
                "batch_size": 8,
                "num_minibatches": 1,
                "epochs": 1,
                "optim": OptimConfig(lr=3e-3, min_lr_ratio=1.0),
                "evaluate_every": 1,
                "evaluation_prompts": 4,
                **ppo_values,
            }
        ),
        rollout=RolloutConfig(max_new_tokens=4),
        tracker=TrackerConfig(progress=False),
    )
    save_tiny_model(folder / "policy", "llama", pad=True)
    reward_model = load_reward_model(str(folder / "policy"), ModelConfig(), fresh_head=True)
    torch.nn.init.normal_(reward_model.score.weight, std=1.0)
    save_model(reward_model, load_tokenizer(str(folder / "policy")), folder / "reward_model")
    rows = [Demonstration(Prompt(f"toy:{i}", (Message(Role.user, "one two " * (1 + i)),)), "three") for i in range(8)]
    parents = {"policy": folder / "policy", "reward_model": folder / "reward_model"}
    source = ListSource(train_demonstrations=rows, held_out_demonstrations=rows)
    return StageContext(config, StageFolder(folder / "ppo"), parents, MemoryTracker(), source, False)  # type: ignore[arg-type]


def test_every_rollout_is_of_the_weights_of_that_moment(fake: FakeEngine, tmp_path: Path) -> None:
    """Two iterations with an evaluation before, between and after: five rollouts of three sets of weights."""
    ppo.run(context_in(tmp_path))
    assert fake.calls == ["sync", "generate"] * 5 + ["close"]
    before, first, between, second, after = fake.weights
    assert torch.equal(before, first)
    assert not torch.equal(first, between)
    assert torch.equal(between, second)
    assert not torch.equal(second, after)


def test_evaluation_of_an_average_is_sampled_from_the_average(fake: FakeEngine, tmp_path: Path) -> None:
    ppo.run(context_in(tmp_path, ema_decay=0.9))
    between, second = fake.weights[2:4]
    assert not torch.equal(between, second)


def test_each_iteration_has_its_seed_and_evaluations_share_one(fake: FakeEngine, tmp_path: Path) -> None:
    ppo.run(context_in(tmp_path))
    before, first, between, second, after = fake.seeds
    assert before == between == after
    assert len({before, first, second}) == 3


def test_the_engine_is_closed_when_a_rollout_fails(fake: FakeEngine, tmp_path: Path) -> None:
    fake.fail_at = 2
    with pytest.raises(RuntimeError, match="out of memory"):
        ppo.run(context_in(tmp_path))
    assert fake.calls[-1] == "close"


def test_hf_gives_the_bits_of_plain_generate() -> None:
    model, config = tiny_model("gpt2"), RolloutConfig(max_new_tokens=12, temperature=0.7)
    engine = HFEngine(config, eos_token_id=EOS)
    engine.sync(model)
    plain = generate(model, PROMPTS, eos_token_id=EOS, config=config, generator_seed=3)
    assert engine.generate(PROMPTS, seed=3) == plain


@pytest.mark.parametrize("name", ["hf", "paged"])
def test_rollout_engine_names_the_class(name: str, tmp_path: Path) -> None:
    context = context_in(tmp_path)
    context.config.rollout.engine = RolloutEngineName(name)
    roles = ppo.load_roles(context)
    with open_engine(context, roles) as engine:
        assert type(engine).__name__.lower() == f"{name}engine"


def test_a_missing_server_is_refused_before_a_model_loads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ppo, "load_roles", lambda context: pytest.fail("a model was loaded"))
    context = context_in(tmp_path)
    context.config.rollout = RolloutConfig(
        engine=RolloutEngineName.vllm_server, vllm=VLLMConfig(url="http://127.0.0.1:9")
    )
    with pytest.raises(UserError, match=r"No vLLM server answers at rollout.vllm.url=http://127.0.0.1:9 .*refused"):
        ppo.run(context)

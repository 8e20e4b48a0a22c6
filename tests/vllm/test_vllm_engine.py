"""vLLM itself, on a CPU: it samples our distribution from the newest weights, and its log-probs are the trainer's.

Skipped where vLLM is not installed; `make test-vllm` makes an environment that has it and runs these.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.config import (
    Config,
    DataConfig,
    DType,
    LoraConfig,
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
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.lora import add_lora
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.engines import vllm_colocated
from rlhf.ppo.engines.vllm_colocated import VLLMEngine
from rlhf.runtime.folder import StageFolder
from rlhf.training.context import StageContext
from stages import ppo
from tests.support.fakes import ListSource, MemoryTracker
from tests.vllm.policies import BOUND, EOS, PROMPTS, largest_difference, save_sharp_model, update

pytest.importorskip("vllm", reason="vLLM is not installed; `make test-vllm` makes an environment that has it")


def config_for(**rollout: Any) -> Config:
    return Config(
        data=DataConfig(max_prompt_tokens=32),
        rollout=RolloutConfig(
            **{
                "engine": RolloutEngineName.vllm,
                "max_new_tokens": 12,
                "batch_size": 16,
                "vllm": VLLMConfig(kv_cache_gib=0.1),
                **rollout,
            }
        ),
        tracker=TrackerConfig(progress=False),
    )


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., tuple[Any, VLLMEngine]]]:
    """A policy saved to disk, and an engine started from it; closed at the end."""
    engines: list[VLLMEngine] = []

    def begin(
        architecture: str = "llama", *, dtype: DType = DType.float32, tied: bool = False, **rollout: Any
    ) -> tuple[Any, VLLMEngine]:
        config = config_for(**rollout)
        config.model = ModelConfig(dtype=dtype)
        path = save_sharp_model(tmp_path / "policy", architecture, tied=tied)
        policy = load_causal_lm(path, config.model)
        engine = VLLMEngine(config, path, eos_token_id=EOS, device=torch.device("cpu"))
        engines.append(engine)
        return policy, engine

    yield begin
    for engine in engines:
        engine.close()


@pytest.mark.parametrize("dtype", [DType.float32, DType.bfloat16])
@pytest.mark.parametrize("architecture", ["llama", "gpt2", "gpt_neox", "qwen2"])
def test_after_an_update_its_logprobs_are_the_trainers(
    architecture: str, dtype: DType, start: Callable[..., tuple[Any, VLLMEngine]]
) -> None:
    policy, engine = start(architecture, dtype=dtype, temperature=0.7)
    engine.sync(policy)
    engine.generate(PROMPTS, seed=0)  # fills the prefix cache with the old weights' keys
    for seed in (1, 2):
        update(policy, seed=seed)
        engine.sync(policy)
        drawn = engine.generate(PROMPTS, seed=seed)
        assert largest_difference(policy, drawn, 0.7) < BOUND[dtype]


def test_weights_that_were_not_synced_are_seen_in_the_logprobs(
    start: Callable[..., tuple[Any, VLLMEngine]],
) -> None:
    """What the test above would see if `sync` did nothing: four times its widest bound."""
    policy, engine = start("llama")
    engine.sync(policy)
    update(policy)
    assert largest_difference(policy, engine.generate(PROMPTS, seed=0)) > 4 * BOUND[DType.bfloat16]


def test_tied_embeddings_are_synced(start: Callable[..., tuple[Any, VLLMEngine]]) -> None:
    policy, engine = start("llama", tied=True)
    update(policy)
    engine.sync(policy)
    assert largest_difference(policy, engine.generate(PROMPTS, seed=0)) < BOUND[DType.float32]


def test_an_adapter_is_synced_merged_and_stays_apart_in_the_policy(
    start: Callable[..., tuple[Any, VLLMEngine]],
) -> None:
    base, engine = start("llama")
    policy = add_lora(base, LoraConfig(r=2))
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    before = {name: weight.clone() for name, weight in policy.state_dict().items()}
    engine.sync(policy)
    assert largest_difference(policy, engine.generate(PROMPTS, seed=0)) < BOUND[DType.float32]
    assert all(torch.equal(before[name], weight) for name, weight in policy.state_dict().items())


def test_it_samples_softmax_of_scaled_logits_whatever_the_models_folder_says(
    start: Callable[..., tuple[Any, VLLMEngine]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The folder's generation_config asks for greedy sampling and ten more end tokens; neither happens."""
    real = vllm_colocated.resolve_model_path

    def with_generation_config(path: str) -> str:
        asked = {"do_sample": False, "top_k": 1, "temperature": 0.01, "repetition_penalty": 9.0}
        (Path(path) / "generation_config.json").write_text(json.dumps({**asked, "eos_token_id": list(range(200))}))
        return real(path)

    monkeypatch.setattr(vllm_colocated, "resolve_model_path", with_generation_config)
    n, temperature, width = 3000, 1.7, 20
    policy, engine = start("llama", temperature=temperature, max_new_tokens=2, batch_size=256)
    engine.sync(policy)
    drawn = engine.generate([[5, 6, 7]] * n, seed=0)
    assert all(len(ids) == 2 or ids == [EOS] for ids in drawn.response_ids)
    counts = Counter(ids[0] for ids in drawn.response_ids)
    with torch.no_grad():
        expected = (policy(torch.tensor([[5, 6, 7]])).logits[0, -1].double() / temperature).softmax(-1) * n
    likely = expected.topk(width).indices.tolist()
    chi_square = sum((counts[t] - float(expected[t])) ** 2 / float(expected[t]) for t in likely)
    rest = n - sum(counts[t] for t in likely)
    expected_rest = n - float(expected[likely].sum())
    chi_square += (rest - expected_rest) ** 2 / expected_rest
    # `width` degrees of freedom: mean `width`, variance twice that; five standard deviations above is chance 1e-6.
    assert chi_square < width + 5 * (2 * width) ** 0.5


def test_responses_end_with_their_end_token_or_at_the_limit(start: Callable[..., tuple[Any, VLLMEngine]]) -> None:
    policy, engine = start("llama", temperature=2.0, max_new_tokens=24)
    with torch.no_grad():
        policy.lm_head.weight[EOS] *= 3
    engine.sync(policy)
    drawn = engine.generate(PROMPTS * 20, seed=0)
    assert set(drawn.ended) == {True, False}
    assert drawn.logprobs is not None
    for ids, ended, logprobs in zip(drawn.response_ids, drawn.ended, drawn.logprobs, strict=True):
        assert ids.count(EOS) == ended
        assert ids[-1] == EOS if ended else len(ids) == 24
        assert len(logprobs) == len(ids)


def test_seed_decides_the_responses_and_equal_prompts_differ(
    start: Callable[..., tuple[Any, VLLMEngine]],
) -> None:
    policy, engine = start("llama")
    engine.sync(policy)
    same = [[5, 6, 7]] * 8
    one, again, other = (engine.generate(same, seed=seed) for seed in (1, 1, 2))
    assert one.response_ids == again.response_ids
    assert one.response_ids != other.response_ids
    assert len({tuple(ids) for ids in one.response_ids}) > 1


def test_a_cache_too_small_for_one_response_is_refused_with_a_sentence(tmp_path: Path) -> None:
    config = config_for(vllm=VLLMConfig(kv_cache_gib=1e-5))
    path = save_sharp_model(tmp_path / "policy", "llama")
    with pytest.raises(UserError, match=r"rollout.engine=vllm does not start: .* rollout\.vllm\.kv_cache_gib is 1e-05"):
        VLLMEngine(config, path, eos_token_id=EOS, device=torch.device("cpu"))


def test_ppo_trains_on_its_rollouts(tmp_path: Path) -> None:
    """The stage itself: the first iteration's rollouts are of the starting weights, so its KL is rounding alone."""
    config = config_for(max_new_tokens=6)
    config.ppo = PPOConfig(
        episodes=32,
        batch_size=16,
        num_minibatches=1,
        epochs=1,
        optim=OptimConfig(lr=1e-3, min_lr_ratio=1.0),
        evaluate_every=0,
        evaluation_prompts=4,
    )
    save_sharp_model(tmp_path / "policy", "llama")
    reward_model = load_reward_model(str(tmp_path / "policy"), ModelConfig(), fresh_head=True)
    torch.nn.init.normal_(reward_model.score.weight)
    save_model(reward_model, load_tokenizer(str(tmp_path / "policy")), tmp_path / "reward_model")
    rows = [Demonstration(Prompt(f"toy:{i}", (Message(Role.user, "one " * (1 + i)),)), "three") for i in range(8)]
    tracker = MemoryTracker()
    parents = {name: tmp_path / name for name in ("policy", "reward_model")}
    source = ListSource(train_demonstrations=rows, held_out_demonstrations=rows)
    context = StageContext(config, StageFolder(tmp_path / "ppo"), parents, tracker, source, False)  # type: ignore[arg-type]
    ppo.run(context)
    first, second = tracker.values("objective/kl")
    assert first == 0
    assert second != 0

"""Continuous batching draws from the same distribution as our own loop, and says so in its log-probs."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.config import LoraConfig, RolloutConfig
from rlhf.models.lora import add_lora
from rlhf.ppo.engines.hf import HFEngine
from rlhf.ppo.engines.paged import PagedEngine
from rlhf.ppo.rollout import Rollout
from tests.support.tiny_ppo import ARCHITECTURES, EOS, VOCAB, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [4], [12, 13, 14], [9, 9, 9, 9, 9], [3, 4], [7, 8, 9, 10]]


def run(model: PreTrainedModel, prompts: list[list[int]], *, seed: int = 0, **config: float) -> Rollout:
    engine = PagedEngine(RolloutConfig(**({"max_new_tokens": 12} | config)), eos_token_id=EOS)  # type: ignore[arg-type]
    engine.sync(model)
    return engine.generate(prompts, seed=seed)


@torch.no_grad()
def plain_logprobs(model: PreTrainedModel, prompt: list[int], response: list[int], temperature: float) -> list[float]:
    """One forward of the whole sequence: no cache, no padding."""
    logits = model(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1] / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0].tolist()


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_its_logprobs_are_those_of_a_plain_forward_at_the_temperature(architecture: str) -> None:
    model = tiny_model(architecture)
    drawn = run(model, PROMPTS * 8, temperature=0.7, batch_size=5)
    assert drawn.logprobs is not None
    for prompt, response, logprobs in zip(PROMPTS * 8, drawn.response_ids, drawn.logprobs, strict=True):
        assert logprobs == pytest.approx(plain_logprobs(model, prompt, response, 0.7), abs=1e-4)
    assert set(drawn.ended) == {True, False}, "the test needs responses that end and responses that are cut"


def test_nearly_greedy_it_gives_the_responses_of_the_default_engine() -> None:
    model = tiny_model("llama")
    default = HFEngine(RolloutConfig(max_new_tokens=12, temperature=1e-3), eos_token_id=EOS)
    default.sync(model)
    expected = default.generate(PROMPTS, seed=0)
    drawn = run(model, PROMPTS, temperature=1e-3)
    assert (drawn.response_ids, drawn.ended) == (expected.response_ids, expected.ended)


def test_sampled_frequencies_match_softmax_of_scaled_logits() -> None:
    model, n = tiny_model("llama"), 2000
    counts = Counter(ids[0] for ids in run(model, [[5, 6, 7]] * n, temperature=1.7, max_new_tokens=1).response_ids)
    with torch.no_grad():
        expected = (model(torch.tensor([[5, 6, 7]])).logits[0, -1].double() / 1.7).softmax(-1) * n
    chi_square = sum((counts[t] - float(e)) ** 2 / float(e) for t, e in enumerate(expected))
    # The statistic has mean VOCAB - 1 and variance 2 (VOCAB - 1): five standard deviations above is chance 1e-6.
    assert chi_square < (VOCAB - 1) + 5 * (2 * (VOCAB - 1)) ** 0.5


def test_a_response_holds_its_end_token_once_and_nothing_after() -> None:
    drawn = run(tiny_model("llama"), PROMPTS * 4)
    for ids, ended in zip(drawn.response_ids, drawn.ended, strict=True):
        assert ids.count(EOS) == ended
        assert len(ids) == 12 or ids[-1] == EOS


def test_generation_config_of_the_model_is_never_applied() -> None:
    model = tiny_model("llama")
    plain = run(model, PROMPTS)
    model.generation_config.top_k = 1
    model.generation_config.temperature = 0.01
    model.generation_config.do_sample = False
    model.generation_config.eos_token_id = [EOS, *range(5, 20)]
    assert run(model, PROMPTS) == plain


def test_seed_decides_the_responses_and_the_callers_random_numbers_stay() -> None:
    model = tiny_model("gpt2")
    state = torch.get_rng_state()
    assert run(model, PROMPTS, seed=1) == run(model, PROMPTS, seed=1)
    assert run(model, PROMPTS, seed=1) != run(model, PROMPTS, seed=2)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_model_is_left_as_it_was_and_an_update_is_seen() -> None:
    model = tiny_model("llama").train()
    attention = model.config._attn_implementation
    before = run(model, PROMPTS, temperature=0.5)
    assert model.training
    assert model.config._attn_implementation == attention
    with torch.no_grad():
        for weight in model.parameters():
            weight.mul_(1.5)
    assert run(model, PROMPTS, temperature=0.5) != before


def test_an_adapter_is_part_of_the_policy() -> None:
    policy = add_lora(tiny_model("llama"), LoraConfig(r=2))
    before = run(policy, PROMPTS)
    with torch.no_grad():
        for name, weight in policy.named_parameters():
            if "lora_B" in name:
                weight.normal_()
    after = run(policy, PROMPTS)
    assert after != before
    assert after.logprobs is not None
    assert after.logprobs[0] == pytest.approx(plain_logprobs(policy, PROMPTS[0], after.response_ids[0], 1.0), abs=1e-4)


def test_a_failure_in_its_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model("llama")

    def breaks(*args: object, **kwargs: object) -> None:
        raise RuntimeError("no memory left")

    monkeypatch.setattr(model.model, "forward", breaks)
    with pytest.raises(RuntimeError, match="Continuous batching failed: no memory left"):
        run(model, PROMPTS)

"""The sampler draws from softmax(logits / temperature) of the model itself, whatever its padding, cache and batch."""

from __future__ import annotations

from collections import Counter

import pytest
import torch
from transformers import PreTrainedModel

from rlhf.config import RolloutConfig
from rlhf.errors import UserError
from rlhf.ppo import decoding, graphed_decoding
from rlhf.ppo.rollout import Rollout, generate
from tests.support.tiny_ppo import ARCHITECTURES, EOS, VOCAB, tiny_model

PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [4], [12, 13, 14], [9, 9, 9, 9, 9], [3, 4], [7, 8, 9, 10]]


def run(model: PreTrainedModel, prompts: list[list[int]], *, seed: int = 0, **config: float) -> Rollout:
    settings = RolloutConfig(**({"max_new_tokens": 12} | config))  # type: ignore[arg-type]
    return generate(model, prompts, eos_token_id=EOS, config=settings, generator_seed=seed)


@torch.no_grad()
def plain_next(model: PreTrainedModel, ids: list[int], temperature: float) -> torch.Tensor:
    """Next-token probabilities from one plain forward: no cache, no padding, no mask."""
    return (model(torch.tensor([ids])).logits[0, -1].double() / temperature).softmax(-1)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_every_token_is_the_inverse_cdf_of_a_plain_forward(architecture: str) -> None:
    """Replay: each sampled token's interval of the plain model's CDF holds the uniform number it was drawn with."""
    model = tiny_model(architecture)
    prompts = PROMPTS * 12
    drawn = run(model, prompts, seed=3, temperature=0.7, batch_size=7)
    uniforms = torch.rand((len(prompts), 12), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    for prompt, response, row in zip(prompts, drawn.response_ids, uniforms, strict=True):
        for step, token in enumerate(response):
            cumulative = plain_next(model, prompt + response[:step], 0.7).cumsum(-1)
            below = cumulative[token - 1] if token else torch.tensor(0.0)
            assert below - 1e-5 <= row[step] <= cumulative[token] + 1e-5
    assert set(drawn.ended) == {True, False}, "the test needs rows that finish early and rows that do not"


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_logprobs_when_asked_for_are_those_of_a_plain_forward_and_change_no_token(architecture: str) -> None:
    model, prompts = tiny_model(architecture), PROMPTS * 3
    config = RolloutConfig(max_new_tokens=12, temperature=0.7, batch_size=7)
    ids = {"eos_token_id": EOS}
    drawn = generate(model, prompts, **ids, config=config, generator_seed=3, logprobs=True)
    assert drawn.response_ids == run(model, prompts, seed=3, temperature=0.7, batch_size=7).response_ids
    assert drawn.logprobs is not None
    for prompt, response, logprobs in zip(prompts, drawn.response_ids, drawn.logprobs, strict=True):
        plain = [plain_next(model, prompt + response[:t], 0.7)[token].log() for t, token in enumerate(response)]
        assert logprobs == pytest.approx([float(x) for x in plain], abs=1e-4)


def test_sampled_frequencies_match_softmax_of_scaled_logits() -> None:
    model = tiny_model("llama")
    n = 4000
    tokens = [ids[0] for ids in run(model, [[5, 6, 7]] * n, temperature=1.7, max_new_tokens=1).response_ids]
    expected = plain_next(model, [5, 6, 7], 1.7) * n
    counts = Counter(tokens)
    chi_square = sum((counts[t] - float(e)) ** 2 / float(e) for t, e in enumerate(expected))
    # The statistic has mean VOCAB - 1 and variance 2 (VOCAB - 1): five standard deviations above is chance 1e-6.
    assert chi_square < (VOCAB - 1) + 5 * (2 * (VOCAB - 1)) ** 0.5


def test_generation_config_of_the_model_is_never_applied() -> None:
    model = tiny_model("llama")
    plain = run(model, PROMPTS)
    model.generation_config.top_k = 1
    model.generation_config.temperature = 0.01
    model.generation_config.do_sample = False
    model.generation_config.max_length = 3
    assert run(model, PROMPTS) == plain


def test_a_token_of_probability_0_is_never_drawn() -> None:
    logits = torch.tensor([[-torch.inf, 1.0, -torch.inf, 1.0]]).expand(4, -1)
    edges = torch.tensor([0.0, 0.5, 0.5 - 1e-12, 1 - 2**-53], dtype=torch.float64)
    assert decoding.inverse_cdf(logits, edges, 1.0).tolist() == [1, 3, 1, 3]


def test_seed_decides_the_responses() -> None:
    model = tiny_model("gpt2")
    assert run(model, PROMPTS, seed=1) == run(model, PROMPTS, seed=1)
    assert run(model, PROMPTS, seed=1) != run(model, PROMPTS, seed=2)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_batching_prefill_parts_and_dropping_rows_change_no_token(
    architecture: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture)
    together = run(model, PROMPTS * 4, batch_size=256)
    assert run(model, PROMPTS * 4, batch_size=1) == together
    monkeypatch.setattr(decoding, "ROW_MULTIPLE", 1)
    assert run(model, PROMPTS * 4, batch_size=256) == together
    monkeypatch.setattr(decoding, "PREFILL_ROWS", 2)
    assert run(model, PROMPTS * 4, batch_size=256) == together
    monkeypatch.setattr(decoding, "DROP_FINISHED_AT", 2.0)
    assert run(model, PROMPTS * 4, batch_size=256) == together


def test_a_response_holds_its_end_token_once_and_nothing_after() -> None:
    drawn = run(tiny_model("llama"), PROMPTS * 5)
    for ids, ended in zip(drawn.response_ids, drawn.ended, strict=True):
        assert ids.count(EOS) == ended
        assert len(ids) == 12 or ids[-1] == EOS


def test_pad_equal_to_eos_changes_no_response() -> None:
    model = tiny_model("gpt2")
    settings = RolloutConfig(max_new_tokens=12)
    same = generate(model, PROMPTS, eos_token_id=EOS, config=settings, generator_seed=0)
    assert same == run(model, PROMPTS)


def test_model_generates_without_dropout_and_its_mode_is_restored() -> None:
    model = tiny_model("gpt2", dropout=0.5)
    model.eval()
    quiet = run(model, PROMPTS)
    model.train()
    assert run(model, PROMPTS) == quiet
    assert model.training


def test_a_prompt_that_leaves_no_room_is_refused_with_the_key_to_change() -> None:
    with pytest.raises(UserError, match=r"rollout.max_new_tokens=200 .* context of 64"):
        run(tiny_model("gpt2"), PROMPTS, max_new_tokens=200)


@pytest.mark.parametrize("architecture", ARCHITECTURES)
@pytest.mark.parametrize("attention", ["eager", "sdpa"])
def test_a_static_cache_changes_no_token(architecture: str, attention: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tiny_model(architecture)
    model.set_attn_implementation(attention)
    ids = {"eos_token_id": EOS, "generator_seed": 3, "logprobs": True}
    grown = generate(model, PROMPTS * 3, **ids, config=RolloutConfig(max_new_tokens=20, temperature=0.7))
    static = RolloutConfig(max_new_tokens=20, temperature=0.7, cuda_graphs=True, batch_size=7)
    # On a GPU steps are run for practice before one is captured; here they must change nothing either.
    forward = graphed_decoding._Step._forward

    def practised(step: graphed_decoding._Step) -> torch.Tensor:
        at = step._next - 1  # the step's column is open already
        forward(step)
        for layer in step._cache.layers:
            layer.cumulative_length.fill_(at)
        return forward(step)

    monkeypatch.setattr(graphed_decoding._Step, "_forward", practised)
    drawn = generate(model, PROMPTS * 3, **ids, config=static)
    assert drawn.response_ids == grown.response_ids
    assert drawn.logprobs is not None
    assert grown.logprobs is not None
    for ours, expected in zip(drawn.logprobs, grown.logprobs, strict=True):
        assert ours == pytest.approx(expected, abs=1e-4)


def test_a_static_cache_refuses_layers_with_a_window() -> None:
    model = tiny_model("qwen2")
    model.config.layer_types = ["full_attention", "sliding_attention"]
    model.config.sliding_window = 4
    with pytest.raises(UserError, match=r"set rollout\.cuda_graphs=false"):
        run(model, PROMPTS, cuda_graphs=True)

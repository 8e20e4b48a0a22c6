"""Micro-batches hold every row once, and what models say at response positions does not depend on how they are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoModelForSequenceClassification,
    GraniteConfig,
    GraniteForCausalLM,
)

from rlhf.models.scores import hidden_states
from rlhf.ppo import batching
from rlhf.ppo.batching import (
    ROW_MULTIPLE,
    WIDTH_MULTIPLE,
    micro_batches,
    response_logits,
    response_logprobs,
    response_values,
    sequences,
)
from rlhf.rl.logprobs import token_logprobs
from tests.support.tiny_ppo import ARCHITECTURES, tiny_config, tiny_model

PROMPTS = [[5, 6, 7], [8], [9, 10, 11, 12, 13, 14, 15, 16, 17, 18], [4, 5]]
RESPONSES = [[9, 2], [3, 4, 5, 6], [7], [2]]

lengths = st.lists(st.tuples(st.integers(1, 40), st.integers(1, 20)), min_size=1, max_size=30)


@given(shapes=lengths, budget=st.integers(1, 2000), flat=st.booleans())
def test_every_row_is_in_one_micro_batch_and_its_tokens_with_it(
    shapes: list[tuple[int, int]], budget: int, flat: bool
) -> None:
    prompts = [[row + 1] * p for row, (p, _) in enumerate(shapes)]
    responses = [[100 + row] * r for row, (_, r) in enumerate(shapes)]
    batch = sequences(prompts, responses, device="cpu", context=None, flat=flat)
    seen = []
    for micro in micro_batches(batch, range(len(shapes)), budget):
        rows, width = micro.input_ids.shape
        assert rows * width % 64 == len(micro.before) % 64 == 0
        if not flat:
            assert rows % ROW_MULTIPLE == width % WIDTH_MULTIPLE == 0
            assert rows * width <= budget or rows == ROW_MULTIPLE
        seen += micro.rows.tolist()
        expected = [token for row in micro.rows.tolist() for token in responses[row]]
        assert micro.response_ids.tolist() == expected
        # The token at `before` is the prompt's last one for a response's first token, else the response's previous one.
        previous = [t for row in micro.rows.tolist() for t in [prompts[row][-1], *responses[row][:-1]]]
        assert micro.input_ids.flatten()[micro.before][: len(expected)].tolist() == previous
    assert sorted(seen) == list(range(len(shapes)))


@pytest.mark.parametrize(("architecture", "flat"), [*((name, False) for name in ARCHITECTURES), ("llama", True)])
def test_logprobs_at_response_positions_are_those_of_a_plain_forward(architecture: str, flat: bool) -> None:
    model = tiny_model(architecture)
    batch = sequences(PROMPTS, RESPONSES, device="cpu", context=64, flat=flat)
    for micro in micro_batches(batch, range(4), 64):
        ours = token_logprobs(response_logits(model, micro), micro.response_ids).tolist()
        expected = []
        for row in micro.rows.tolist():
            logits = model(torch.tensor([PROMPTS[row] + RESPONSES[row]])).logits[0].log_softmax(-1)
            start = len(PROMPTS[row]) - 1
            expected += [float(logits[start + t, token]) for t, token in enumerate(RESPONSES[row])]
        assert ours == pytest.approx(expected, abs=1e-5)


@pytest.mark.parametrize(("architecture", "flat"), [*((name, False) for name in ARCHITECTURES), ("llama", True)])
def test_logits_made_some_tokens_at_a_time_change_nothing(
    architecture: str, flat: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model(architecture)
    batch = sequences(PROMPTS, RESPONSES, device="cpu", context=64, flat=flat)
    (micro,) = micro_batches(batch, range(4), 10_000)

    def outputs_and_gradients() -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        model.zero_grad()
        logprobs, entropy = response_logprobs(model, micro, 0.7, with_entropy=True)
        assert entropy is not None
        (logprobs.exp().sum() + 0.3 * entropy.sum()).backward()
        return [logprobs, entropy], [p.grad.clone() for p in model.parameters() if p.grad is not None]

    whole, whole_gradients = outputs_and_gradients()
    largest = 0

    def count(module: torch.nn.Module, inputs: tuple[torch.Tensor], output: torch.Tensor) -> None:
        nonlocal largest
        largest = max(largest, output.numel())

    monkeypatch.setattr(batching, "LOGITS_AT_ONCE", 3 * 32)
    model.get_output_embeddings().register_forward_hook(count)
    parts, gradients = outputs_and_gradients()
    assert largest == 3 * 32
    for ours, expected in zip([*parts, *gradients], [*whole, *whole_gradients], strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-4)


_SMALL = {"vocab_size": 32, "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}
_SETTINGS = {
    "bloom": {},
    "gpt2": {},
    "gptj": {"rotary_dim": 4},
    "opt": {"ffn_dim": 32, "word_embed_proj_dim": 8},
    "qwen3": {"num_key_value_heads": 1, "head_dim": 8, "intermediate_size": 32},
}


@pytest.mark.parametrize("architecture", sorted(batching.HEAD_IS_ALL))
def test_logits_are_the_head_of_the_last_hidden_states(architecture: str) -> None:
    torch.manual_seed(0)
    given = _SETTINGS.get(architecture, {"num_key_value_heads": 1, "intermediate_size": 32})
    model = AutoModelForCausalLM.from_config(AutoConfig.for_model(architecture, **_SMALL, **given)).eval()
    ids = torch.tensor([[5, 6, 7, 8]])
    assert torch.equal(model.get_output_embeddings()(hidden_states(model, ids)), model(ids).logits)


def test_logits_that_are_changed_behind_the_head_are_made_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.manual_seed(0)
    settings = {**tiny_config("llama").to_dict(), "logits_scaling": 8.0}
    model = GraniteForCausalLM(GraniteConfig(**{k: v for k, v in settings.items() if k != "model_type"})).eval()
    batch = sequences(PROMPTS, RESPONSES, device="cpu", context=64)
    (micro,) = micro_batches(batch, range(4), 10_000)
    expected, _ = response_logprobs(model, micro, 1.0)
    monkeypatch.setattr(batching, "LOGITS_AT_ONCE", 3 * 32)
    assert torch.equal(response_logprobs(model, micro, 1.0)[0], expected)


@pytest.mark.parametrize("flat", [False, True])
def test_values_are_of_the_state_before_each_token(flat: bool) -> None:
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.num_labels = 1
    model = AutoModelForSequenceClassification.from_config(config).eval()
    batch = sequences(PROMPTS, RESPONSES, device="cpu", context=64, flat=flat)
    (micro,) = micro_batches(batch, range(4), 10_000)
    ours = response_values(model, micro).tolist()
    expected = []
    for row in micro.rows.tolist():
        hidden = model.model(torch.tensor([PROMPTS[row] + RESPONSES[row]])).last_hidden_state[0]
        start = len(PROMPTS[row]) - 1
        expected += model.score(hidden)[start : start + len(RESPONSES[row]), 0].tolist()
    assert ours == pytest.approx(expected, abs=1e-5)


def test_padding_stays_inside_a_context_that_is_no_round_number() -> None:
    model = tiny_model("gpt2")  # its positions end at 64, and a 65th would be an index error
    batch = sequences([[5] * 60], [[6, 7]], device="cpu", context=61)
    (micro,) = micro_batches(batch, [0], 8192)
    assert micro.input_ids.shape[1] == 61
    assert response_logits(model, micro).shape == (2, 32)

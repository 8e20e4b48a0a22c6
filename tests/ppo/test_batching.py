"""Micro-batches hold every row once, and what models say at response positions does not depend on how they are cut."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import AutoModelForSequenceClassification

from rlhf.ppo.batching import ROW_MULTIPLE, WIDTH_MULTIPLE, micro_batches, response_logits, response_values, sequences
from rlhf.rl.logprobs import token_logprobs
from tests.ppo.tiny import ARCHITECTURES, tiny_config, tiny_model

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

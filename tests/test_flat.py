"""Flat rows give what each row gives alone, forwards and backwards, and only where the model is known to allow it."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForSequenceClassification

from rlhf.flat import ARCHITECTURES, BLOCK_ROWS, can_run_flat, flat_attention, flat_groups, flatten
from rlhf.models import sequence_scores
from tests.ppo.tiny import tiny_config, tiny_model

ROWS = [[3, 4, 5], [6], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22, 23, 24], [25, 26], [5] * 31]


def eager(architecture: str) -> Any:
    model = tiny_model(architecture)
    model.set_attn_implementation("eager")
    return model


def flat_logits(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    flat = flatten(rows)
    with flat_attention(model, flat.blocks) as given:
        logits = model(input_ids=flat.input_ids, position_ids=flat.position_ids, use_cache=False, **given).logits[0]
    return [logits[start : start + len(row)] for start, row in zip(flat.starts.tolist(), rows, strict=True)]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_flat_rows_give_the_logits_and_gradients_of_each_row_alone(architecture: str) -> None:
    model = eager(architecture)
    assert can_run_flat(model)
    flat = flat_logits(model, ROWS)
    sum(part.log_softmax(-1)[:, 3].sum() for part in flat).backward()
    gradients = {name: p.grad.clone() for name, p in model.named_parameters()}
    model.zero_grad()
    alone = [model(torch.tensor([row])).logits[0] for row in ROWS]
    sum(part.log_softmax(-1)[:, 3].sum() for part in alone).backward()
    for ours, expected in zip(flat, alone, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(gradients[name], parameter.grad, atol=1e-4, rtol=1e-4)


def test_model_is_as_before_after_a_flat_pass_and_after_one_that_failed() -> None:
    model = eager("llama")
    before = model(torch.tensor([ROWS[0]])).logits
    flat_logits(model, ROWS)
    with pytest.raises(KeyError), flat_attention(model, []):
        raise KeyError
    assert model.config._attn_implementation == "eager"
    assert torch.equal(model(torch.tensor([ROWS[0]])).logits, before)


def test_only_plain_attention_of_known_architectures_runs_flat() -> None:
    assert not can_run_flat(eager("gpt2"))
    model = eager("llama")
    model.set_attn_implementation("sdpa")
    assert not can_run_flat(model)
    model.set_attn_implementation("eager")
    model.gradient_checkpointing_enable()
    assert not can_run_flat(model)
    sliding = eager("qwen2")
    sliding.config.layer_types = ["full_attention", "sliding_attention"]
    assert not can_run_flat(sliding)


@given(lengths=st.lists(st.integers(1, 60), min_size=1, max_size=40), budget=st.integers(64, 1000))
def test_groups_hold_every_row_once_within_the_budget(lengths: list[int], budget: int) -> None:
    groups = flat_groups(lengths, budget)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    for group in groups:
        tokens = flatten([[1] * lengths[i] for i in group]).input_ids.numel()
        assert tokens % 64 == 0
        assert tokens <= budget or len(group) <= BLOCK_ROWS


def test_flat_rows_pad_little() -> None:
    lengths = [(i * 37) % 96 + 1 for i in range(96)]
    tokens = flatten([[1] * length for length in lengths]).input_ids.numel()
    assert tokens < 1.12 * sum(lengths)


def test_scores_do_not_depend_on_running_flat() -> None:
    torch.manual_seed(0)
    config = tiny_config("llama")
    config.num_labels = 1
    model = LlamaForSequenceClassification(config).eval()
    model.set_attn_implementation("sdpa")
    padded = sequence_scores(model, ROWS)
    model.set_attn_implementation("eager")
    for budget in (8192, 64):
        torch.testing.assert_close(sequence_scores(model, ROWS, token_budget=budget), padded, atol=1e-5, rtol=1e-5)

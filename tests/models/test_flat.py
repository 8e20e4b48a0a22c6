"""Flat rows give what each row gives alone, forwards and backwards, and only where the model is known to allow it."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from transformers import LlamaForSequenceClassification

from rlhf.config import ModelConfig
from rlhf.errors import UserError
from rlhf.models import flat as flat_module
from rlhf.models import varlen
from rlhf.models.flat import ARCHITECTURES, BLOCK_ROWS, can_run_flat, flat_attention, flat_groups, flatten
from rlhf.models.load import load_causal_lm
from rlhf.models.scores import sequence_scores
from tests.support.tiny import save_tiny_model
from tests.support.tiny_ppo import tiny_config, tiny_model

ROWS = [[3, 4, 5], [6], [7, 8, 9, 10, 11, 12, 13, 14, 15, 16], [17, 18, 19, 20, 21, 22, 23, 24], [25, 26], [5] * 31]


def eager(architecture: str) -> Any:
    model = tiny_model(architecture)
    model.set_attn_implementation("eager")
    return model


def flat_logits(model: Any, rows: list[list[int]]) -> list[torch.Tensor]:
    flat = flatten(rows)
    with flat_attention(model, flat) as given:
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
    with pytest.raises(KeyError), flat_attention(model, flatten(ROWS)):
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


def rows_in_plain_torch(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, boundaries: torch.Tensor, scale: float
) -> torch.Tensor:
    """What PyTorch's CUDA kernel is documented to compute; (tokens, heads, depth) each."""
    assert boundaries.dtype == torch.int32
    parts = []
    for start, end in itertools.pairwise(boundaries.tolist()):
        row = (t[start:end].transpose(0, 1) for t in (query, key, value))
        gqa = key.shape[1] != query.shape[1]
        attended = torch.nn.functional.scaled_dot_product_attention(*row, is_causal=True, scale=scale, enable_gqa=gqa)
        parts.append(attended.transpose(0, 1))
    return torch.cat(parts)


def kernel_of_2_13(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1), enable_gqa=False):  # type: ignore[no-untyped-def]
    assert window_size == (-1, 0)
    assert cu_q is cu_k
    assert max_q == max_k == int(cu_q.diff().max())
    assert enable_gqa or k.shape[1] == q.shape[1]
    return rows_in_plain_torch(q, k, v, cu_q, scale)


def kernel_of_2_11(q, k, v, cu_q, cu_k, max_q, max_k, *, scale=None, window_size=(-1, -1)):  # type: ignore[no-untyped-def]
    assert k.shape[1] == q.shape[1]
    return kernel_of_2_13(q, k, v, cu_q, cu_k, max_q, max_k, scale=scale, window_size=window_size)


def kernel_of_2_10(q, k, v, cu_q, cu_k, max_q, max_k, is_causal=False):  # type: ignore[no-untyped-def]
    assert is_causal
    return kernel_of_2_11(q, k, v, cu_q, cu_k, max_q, max_k, scale=q.shape[2] ** -0.5, window_size=(-1, 0))


@pytest.mark.parametrize("kernel", [kernel_of_2_13, kernel_of_2_11, kernel_of_2_10])
@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
def test_one_kernel_for_all_rows_gives_what_blocks_give(
    architecture: str, kernel: Callable[..., torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    model = eager(architecture)
    in_blocks = flat_logits(model, ROWS)
    # As on a GPU: rows without padding between them, and the kernel in place of the blocks' products.
    monkeypatch.setattr(flat_module, "WIDTH_MULTIPLE", 1)
    monkeypatch.setattr(flat_module, "BLOCK_ROWS", 1)
    monkeypatch.setattr(varlen, "kernel", lambda: kernel)
    monkeypatch.setattr(flat_module, "_in_blocks", flat_module._in_one_kernel)
    for ours, expected in zip(flat_logits(model, ROWS), in_blocks, strict=True):
        torch.testing.assert_close(ours, expected, atol=1e-5, rtol=1e-5)


def test_a_torch_without_the_kernel_is_refused_before_a_model_loads(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(varlen, "kernel", lambda: None)
    with pytest.raises(UserError, match=r"attn_implementation=varlen needs PyTorch 2\.10 or newer.*use sdpa"):
        load_causal_lm(save_tiny_model(tmp_path, "llama"), ModelConfig(attn_implementation="varlen"))


def test_rows_for_a_gpu_have_no_padding_between_them() -> None:
    flat = flatten(ROWS, device="meta")
    lengths = sorted(map(len, ROWS), reverse=True)
    assert [(block.rows, block.width) for block in flat.blocks] == [(1, n) for n in [*lengths, 64 - sum(lengths) % 64]]


def test_varlen_attention_is_the_fused_one_where_a_pass_is_not_flat(tmp_path: Path) -> None:
    model = tiny_model("llama")
    ids, mask = torch.tensor([[0, 3, 4, 5], [6, 7, 8, 9]]), torch.tensor([[0, 1, 1, 1], [1, 1, 1, 1]])
    expected = model(ids, attention_mask=mask).logits
    folder = save_tiny_model(tmp_path, "llama")
    model.set_attn_implementation("varlen")
    assert torch.equal(model(ids, attention_mask=mask).logits, expected)
    assert not can_run_flat(model)  # on a CPU
    assert load_causal_lm(folder, ModelConfig(attn_implementation="varlen")).config._attn_implementation == "varlen"


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

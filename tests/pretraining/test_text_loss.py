from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch

from rlhf.config import ModelConfig
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.pretraining.text_loss import held_out_blocks, text_loss
from tests.support.fakes import ListSource
from tests.support.tiny import save_tiny_model

DOCUMENTS = ["one two three four five six seven eight", "nine ten eleven"] * 200


def test_text_loss_is_the_mean_over_tokens_whatever_the_batches(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    blocks = held_out_blocks(ListSource(documents=DOCUMENTS), tokenizer, 256, sequences=5)
    assert blocks is not None
    assert len(blocks) == 5
    total = 0.0
    for row in blocks:
        with torch.no_grad():
            logprobs = model(row[None]).logits[0].double().log_softmax(-1)
        total -= sum(float(logprobs[t, token]) for t, token in enumerate(row[1:].tolist()))
    expected = total / (5 * (blocks.shape[1] - 1))
    for budget in (1, 2 * blocks.shape[1], 10**6):
        assert text_loss(model, blocks, token_budget=budget) == pytest.approx(expected, rel=1e-5)


def test_a_uniform_model_loses_the_log_of_its_vocabulary(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    with torch.no_grad():
        model.get_output_embeddings().weight.zero_()
    model.train()
    blocks = held_out_blocks(ListSource(documents=DOCUMENTS), tokenizer, None)
    assert blocks is not None
    assert text_loss(model, blocks, token_budget=512) == pytest.approx(math.log(model.config.vocab_size), rel=1e-5)
    assert model.training


def test_without_documents_or_with_too_few_there_is_nothing_to_measure(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    tokenizer = load_tokenizer(path)
    assert held_out_blocks(ListSource(), tokenizer, None) is None
    assert held_out_blocks(ListSource(documents=["one"]), tokenizer, None) is None

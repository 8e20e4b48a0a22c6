from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config import Config, ModelConfig, RolloutConfig, TrackerConfig
from rlhf.evaluation.answering import answer, kl_from_reference, same_tokenizer
from tests.fakes import ListSource, prompt
from tests.tiny import build_tokenizer, save_tiny_model

PROMPTS = [prompt(f"say {word}", i) for i, word in enumerate(("one", "two three", "four five six seven"))]


def test_kl_is_the_candidates_log_probability_minus_sfts(tmp_path: Path) -> None:
    paths = {name: save_tiny_model(tmp_path / name, seed=seed) for seed, name in enumerate(("sft", "ppo"))}
    config = Config(model=ModelConfig(), rollout=RolloutConfig(max_new_tokens=6), tracker=TrackerConfig(progress=False))
    generated = {name: answer(path, name, PROMPTS, ListSource(), config) for name, path in paths.items()}
    kl = kl_from_reference(paths["sft"], generated, config)
    assert kl["sft"] == [0.0, 0.0, 0.0]
    assert kl["ppo"] is not None
    models = {name: AutoModelForCausalLM.from_pretrained(path).eval() for name, path in paths.items()}
    for i, found in enumerate(kl["ppo"]):
        ids, response = generated["ppo"].prompt_ids[i], generated["ppo"].response_ids[i]
        total = {}
        for name, model in models.items():
            with torch.no_grad():
                logprobs = model(torch.tensor([ids + response])).logits[0].double().log_softmax(-1)
            total[name] = sum(float(logprobs[len(ids) - 1 + t, token]) for t, token in enumerate(response))
        assert found == pytest.approx(total["ppo"] - total["sft"], abs=1e-4)
        assert abs(found) > 1e-3


def test_without_an_sft_model_there_is_no_kl(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "only")
    config = Config(rollout=RolloutConfig(max_new_tokens=2), tracker=TrackerConfig(progress=False))
    generated = {"only": answer(path, "only", PROMPTS, ListSource(), config)}
    assert kl_from_reference(None, generated, config) == {"only": None}


def test_tokenizers_are_the_same_by_what_their_ids_mean() -> None:
    assert same_tokenizer(build_tokenizer(), build_tokenizer(chat_template=True))
    assert not same_tokenizer(build_tokenizer(), build_tokenizer(vocab_size=350))
    assert not same_tokenizer(build_tokenizer(), build_tokenizer(bos=True))

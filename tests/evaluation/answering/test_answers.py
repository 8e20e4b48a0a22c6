from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM

from rlhf.config import Config, DType, ModelConfig, RolloutConfig, TrackerConfig
from rlhf.data.records import Demonstration
from rlhf.data.templates import ChatTemplate
from rlhf.evaluation.answering.answers import (
    Model,
    answer,
    answer_few_shot,
    from_file,
    identity,
    kl_from_reference,
    same_tokenizer,
    scored_sequences,
)
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.answering.outputs import Output
from rlhf.models import load
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.rollout import generate
from tests.support.fakes import ListSource, prompt
from tests.support.tiny import build_tokenizer, save_tiny_model

PROMPTS = [prompt(f"say {word}", i) for i, word in enumerate(("one", "two three", "four five six seven"))]
NO_CACHE = AnswerCache(None)


def make_config(seed: int = 0, dtype: DType = DType.float32, **rollout: Any) -> Config:
    return Config(
        seed=seed,
        model=ModelConfig(dtype=dtype),
        rollout=RolloutConfig(**{"max_new_tokens": 6, **rollout}),
        tracker=TrackerConfig(progress=False),
    )


def test_kl_is_the_candidates_log_probability_minus_sfts(tmp_path: Path) -> None:
    paths = {name: save_tiny_model(tmp_path / name, seed=seed) for seed, name in enumerate(("sft", "ppo"))}
    config = make_config()
    generated = {name: answer(path, name, PROMPTS, ListSource(), config, NO_CACHE) for name, path in paths.items()}
    kl = kl_from_reference(paths["sft"], generated, config, NO_CACHE)
    assert kl["sft"] == [0.0, 0.0, 0.0]
    assert kl["ppo"] is not None
    loaded = {name: AutoModelForCausalLM.from_pretrained(path).eval() for name, path in paths.items()}
    for i, found in enumerate(kl["ppo"]):
        ids, response = generated["ppo"].prompt_ids[i], generated["ppo"].response_ids[i]
        total = {}
        for name, model in loaded.items():
            with torch.no_grad():
                logprobs = model(torch.tensor([ids + response])).logits[0].double().log_softmax(-1)
            total[name] = sum(float(logprobs[len(ids) - 1 + t, token]) for t, token in enumerate(response))
        assert found == pytest.approx(total["ppo"] - total["sft"], abs=1e-4)
        assert abs(found) > 1e-3


def test_without_an_sft_model_there_is_no_kl(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path / "only")
    generated = {"only": answer(path, "only", PROMPTS, ListSource(), make_config(), NO_CACHE)}
    assert kl_from_reference(None, generated, make_config(), NO_CACHE) == {"only": None}


def no_loading(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("a model was loaded")

    for name in ("load_causal_lm", "load_reward_model"):
        monkeypatch.setattr(load, name, refuse)


def test_a_second_time_every_number_is_the_same_and_no_model_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {name: save_tiny_model(tmp_path / name, seed=seed) for seed, name in enumerate(("sft", "ppo"))}
    data = ListSource(documents=["one two three four five six seven eight"] * 200)

    def measure(cache: AnswerCache) -> tuple[list[Any], Any]:
        generated = {name: answer(path, name, PROMPTS, data, make_config(), cache) for name, path in paths.items()}
        kl = kl_from_reference(paths["sft"], generated, make_config(), cache)
        return [(g.response_ids, g.texts, g.ended, g.logprobs, g.text_loss) for g in generated.values()], kl

    plain = measure(NO_CACHE)
    assert measure(AnswerCache(tmp_path / "answers")) == plain
    no_loading(monkeypatch)
    again = AnswerCache(tmp_path / "answers")
    assert measure(again) == plain
    assert again.made == 0
    with pytest.raises(AssertionError, match="was loaded"):
        measure(AnswerCache(tmp_path / "others"))


@pytest.mark.parametrize(
    "changed",
    [
        {"seed": 1},
        {"dtype": DType.bfloat16},
        {"temperature": 0.5},
        {"max_new_tokens": 5},
        {"batch_size": 2},
        {"model": 1},
        {"prompts": 2},
    ],
)
def test_answers_are_found_only_for_the_same_model_prompts_sampling_and_seed(
    tmp_path: Path, changed: dict[str, Any]
) -> None:
    def drawn(model: int = 0, prompts: int = 3, **config: Any) -> AnswerCache:
        path = save_tiny_model(tmp_path / "model", seed=model)
        cache = AnswerCache(tmp_path / "answers")
        asked = Model(path, make_config(**config), cache)
        asked.sample([asked.template.prompt_ids(p) for p in PROMPTS[:prompts]], "drawing")
        return cache

    assert drawn().made == drawn().found == 1
    assert drawn(**changed).made == 1


def test_a_hub_ids_answers_are_not_kept_for_what_it_stands_for_may_change() -> None:
    assert identity("someone/some-model", make_config()) is None


def test_another_draw_gives_other_responses_to_the_same_prompts(tmp_path: Path) -> None:
    config = make_config(seed=3)
    model = Model(save_tiny_model(tmp_path), config, NO_CACHE)
    ids = [model.template.prompt_ids(asked) for asked in PROMPTS]
    draws = [model.sample(ids, "drawing", draw=draw) for draw in (0, 1, 2, 1)]
    assert draws[1] == draws[3]
    assert draws[0] != draws[1] != draws[2] != draws[0]
    end = model.tokenizer.eos_token_id
    policy = load_causal_lm(model.path, config.model)
    own = generate(policy, ids, eos_token_id=end, config=config.rollout, generator_seed=3)
    assert draws[0] == own.response_ids  # the first one is fixed by `seed` itself


def shots(word: str) -> ListSource:
    return ListSource(train_demonstrations=[Demonstration(prompt(f"{word} {i}"), f"{word} yes") for i in range(9)])


def test_a_few_shot_candidate_reads_the_shots_and_another_set_changes_its_answers(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    attentive = AutoModelForCausalLM.from_pretrained(path)
    with torch.no_grad():  # a fresh model's answers hardly depend on what it reads
        for parameter in attentive.parameters():
            parameter.mul_(5)
    attentive.save_pretrained(path)
    one, same, other = (
        answer_few_shot(path, "shown", 2, PROMPTS, shots(word), make_config(), NO_CACHE) for word in ("a", "a", "b")
    )
    assert one == dataclasses.replace(same, tokenizer=one.tokenizer)
    assert one.texts != other.texts
    assert one.texts != answer(path, "bare", PROMPTS, ListSource(), make_config(), NO_CACHE).texts
    assert one.about == {"shots": 2}
    assert one.logprobs is one.text_loss is None


def test_a_few_shot_answer_ends_where_another_turn_begins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = save_tiny_model(tmp_path)
    written = [" yes\n\nUser: more\n\nAssistant: no", " yes\nno", "\n\nUser: next"]
    tokenizer = load_tokenizer(path)
    monkeypatch.setattr(Model, "sample", lambda *_, **__: [tokenizer(text).input_ids for text in written])
    shown = answer_few_shot(path, "shown", 1, PROMPTS, shots("a"), make_config(), NO_CACHE)
    assert shown.texts == ["yes", "yes\nno", ""]
    assert shown.ended == [True, False, True]
    assert [ids[-1] == tokenizer.eos_token_id for ids in shown.response_ids] == shown.ended
    assert shown.prompt_ids == [ChatTemplate(tokenizer).prompt_ids(asked) for asked in PROMPTS]


def test_outputs_are_counted_in_a_models_tokens_or_in_words(tmp_path: Path) -> None:
    outputs = {asked.id: Output("one two three", ended=i > 0) for i, asked in enumerate(PROMPTS)}
    in_words = from_file(outputs, PROMPTS, None, make_config())
    assert in_words.lengths == [3, 3, 3]
    assert in_words.about == {"length_in": "words"}
    path = save_tiny_model(tmp_path)
    tokenizer = load_tokenizer(path)
    in_tokens = from_file(outputs, PROMPTS, ("sft", path), make_config())
    tokens = len(tokenizer(" one two three").input_ids)
    assert in_tokens.lengths == [tokens, tokens + 1, tokens + 1]  # the end token, where it ended
    assert in_tokens.about == {"length_in": "tokens of sft"}


def test_what_a_reward_model_reads_is_cut_to_its_context(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    outputs = {asked.id: Output("one " * (400 if i == 0 else 2), ended=True) for i, asked in enumerate(PROMPTS)}
    sequences = scored_sequences(from_file(outputs, PROMPTS, None, make_config()), PROMPTS, path, make_config())
    end = load_tokenizer(path).eos_token_id
    assert len(sequences[0]) == 256
    assert [ids[-1] == end for ids in sequences] == [False, True, True]


def test_tokenizers_are_the_same_by_what_their_ids_mean() -> None:
    assert same_tokenizer(build_tokenizer(), build_tokenizer(chat_template=True))
    assert not same_tokenizer(build_tokenizer(), build_tokenizer(vocab_size=350))
    assert not same_tokenizer(build_tokenizer(), build_tokenizer(bos=True))

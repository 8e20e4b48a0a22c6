from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rlhf.config import Config, ModelConfig, RolloutConfig, TrackerConfig
from rlhf.evaluation.answering.answers import answer, scored_sequences
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.answering.samples import Samples, sample_many
from rlhf.evaluation.statistics import best_of_n
from rlhf.models.load import load_reward_model
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores
from rlhf.models.tokenizers import load_tokenizer
from tests.support.fakes import ListSource, prompt
from tests.support.tiny import save_tiny_model

PROMPTS = [prompt(f"say {word}", i) for i, word in enumerate(("one", "two three", "four five six seven"))]
CONFIG = Config(rollout=RolloutConfig(max_new_tokens=6), tracker=TrackerConfig(progress=False))


@pytest.fixture(scope="module")
def policy(tmp_path_factory: pytest.TempPathFactory) -> str:
    return save_tiny_model(tmp_path_factory.mktemp("policy"))


@pytest.fixture(scope="module")
def reward_model(tmp_path_factory: pytest.TempPathFactory, policy: str) -> str:
    folder = tmp_path_factory.mktemp("reward") / "model"
    model = load_reward_model(policy, ModelConfig(), fresh_head=True)
    torch.manual_seed(1)
    with torch.no_grad():
        model.score.weight.normal_()
    save_model(model, load_tokenizer(policy), folder)
    return str(folder)


def sampled(policy: str, reward_model: str, count: int, cache: AnswerCache) -> Samples:
    return sample_many(policy, PROMPTS, count, CONFIG, cache, reward_model=reward_model)


def test_the_best_of_n_has_the_largest_score_of_the_first_n(policy: str, reward_model: str) -> None:
    samples = sampled(policy, reward_model, 5, AnswerCache(None))
    for count in (1, 2, 5):
        best = samples.best_of(count)
        for i in range(len(PROMPTS)):
            scores = [samples.scores[draw][i] for draw in range(count)]
            chosen = samples.draws[scores.index(max(scores))]
            assert best.texts[i] == chosen.texts[i]
            assert best.response_ids[i] == chosen.response_ids[i]
            assert best.ended[i] == chosen.ended[i]
        assert best.kl == best_of_n.kl(count)
        assert best.about == {"best_of": count}
    assert samples.best_of(5).texts != samples.best_of(1).texts


def test_scores_are_those_of_the_reward_model_and_the_first_draw_is_the_models_own_answer(
    policy: str, reward_model: str
) -> None:
    samples = sampled(policy, reward_model, 2, AnswerCache(None))
    assert samples.draws[0].texts == answer(policy, "m", PROMPTS, ListSource(), CONFIG, AnswerCache(None)).texts
    model = load_reward_model(reward_model, ModelConfig())
    for draw, scores in zip(samples.draws, samples.scores, strict=True):
        sequences = scored_sequences(draw, PROMPTS, reward_model, CONFIG)
        assert scores == pytest.approx(sequence_scores(model, sequences).tolist(), abs=1e-5)


def test_more_samples_cost_only_the_new_ones(policy: str, reward_model: str, tmp_path: Path) -> None:
    few = sampled(policy, reward_model, 2, AnswerCache(tmp_path))
    cache = AnswerCache(tmp_path)
    more = sampled(policy, reward_model, 5, cache)
    assert (cache.found, cache.made) == (4, 6)  # draws and their scores
    assert more.scores[:2] == few.scores
    assert more.scores == sampled(policy, reward_model, 5, AnswerCache(None)).scores

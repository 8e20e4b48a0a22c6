"""Utilities that are known come back from rankings drawn with them, up to the constant that no comparison can show.

Rankings follow Plackett and Luce: the best of what is left is drawn with probability proportional to exp(utility). Any
two items of such a ranking are then ordered as Bradley and Terry say, P(i above j) = sigmoid(u_i - u_j), which is what
the K-way loss is the likelihood of.
"""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from rlhf.config import Config, DataConfig, ModelConfig, OnBadRow, OptimConfig, RewardConfig, TrackerConfig
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.templates import ChatTemplate
from rlhf.models.load import load_reward_model
from rlhf.models.scores import sequence_scores
from rlhf.models.tokenizers import load_tokenizer
from rlhf.reward.rankings import KWayCollator
from rlhf.reward.trainer import build_trainer
from rlhf.rl.kway import kway_loss
from stages import reward as stage
from tests.support.fakes import ListSource, make_context, prompt
from tests.support.tiny import save_tiny_model


def drawn_ranks(utilities: list[float], rng: random.Random) -> list[int]:
    """Places, 0 best: adding Gumbel noise and sorting is drawing the best of what is left, again and again."""
    noisy = [u - torch.tensor(rng.random()).log().neg().log().item() for u in utilities]
    order = sorted(range(len(noisy)), key=lambda i: -noisy[i])
    ranks = [0] * len(noisy)
    for place, item in enumerate(order):
        ranks[item] = place
    return ranks


def correlation(one: Tensor, other: Tensor) -> float:
    return float(torch.corrcoef(torch.stack([one.double(), other.double()]))[0, 1])


def test_free_scores_become_the_utilities_less_a_constant() -> None:
    """The minimum of the loss itself, with nothing else in the way: their scale comes back too."""
    rng = random.Random(0)
    utilities = [rng.gauss(0, 1.5) for _ in range(25)]
    items, ranks, mask = (torch.zeros(3000, 9, dtype=torch.long) for _ in range(3))
    for row in range(len(items)):
        chosen = rng.sample(range(25), rng.randint(4, 9))
        places = drawn_ranks([utilities[i] for i in chosen], rng)
        items[row, : len(chosen)], ranks[row, : len(chosen)] = torch.tensor(chosen), torch.tensor(places)
        mask[row, : len(chosen)] = 1
    scores = torch.zeros(25, dtype=torch.float64, requires_grad=True)
    optimizer = torch.optim.LBFGS([scores], max_iter=100, line_search_fn="strong_wolfe")

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = kway_loss(scores[items], ranks, mask.bool())
        loss.backward()
        return loss

    optimizer.step(closure)  # type: ignore[arg-type]
    found, expected = scores.detach(), torch.tensor(utilities, dtype=torch.float64)
    assert correlation(found, expected) > 0.99
    assert float(found.std() / expected.std()) == pytest.approx(1, abs=0.05)


def word_rankings(words: list[str], utilities: dict[str, float], count: int, rng: random.Random) -> list[Ranking]:
    rankings = []
    for i in range(count):
        chosen = rng.sample(words, rng.randint(4, 9))
        places = drawn_ranks([utilities[word] for word in chosen], rng)
        rankings.append(Ranking(prompt("say a word", i), tuple(chosen), tuple(places)))
    return rankings


def config_for(base: str, **values: Any) -> Config:
    return Config(
        model=ModelConfig(path=base),
        reward=RewardConfig(**values),
        tracker=TrackerConfig(progress=False),
    )


@pytest.mark.slow
def test_a_trained_reward_model_scores_words_by_their_utilities(tmp_path: Path) -> None:
    """The same through the whole stage: collator, trainer, bias and saved folder."""
    rng = random.Random(1)
    words = [a + b for a in "abcde" for b in "vwxyz"]
    utilities = {word: rng.gauss(0, 1.5) for word in words}
    base = save_tiny_model(tmp_path / "base", "llama")
    data = ListSource(
        [Demonstration(prompt("say a word", i), word) for i, word in enumerate(words)],
        train_rankings=word_rankings(words, utilities, 1200, rng),
        held_out_rankings=word_rankings(words, utilities, 20, rng),
    )
    # Enough for every seed: 0 and 1 end at 0.996 and 0.998, after half as many epochs at 0.986 and 0.994.
    config = config_for(
        base, epochs=24, batch_size=16, micro_batch_size_per_device=16, optim=OptimConfig(lr=2e-3, min_lr_ratio=0.0)
    )
    context = make_context(tmp_path / "reward", config, {"policy": base}, data)
    stage.run(context)

    model = load_reward_model(str(context.folder.model_dir), ModelConfig())
    template = ChatTemplate(load_tokenizer(base))
    prompt_ids = template.prompt_ids(prompt("say a word"))
    scores = sequence_scores(model, [prompt_ids + template.response_ids(word) for word in words])
    assert correlation(scores, torch.tensor([utilities[word] for word in words])) > 0.99


def test_gradient_of_the_trainer_is_that_of_every_pair_run_on_its_own(tmp_path: Path) -> None:
    """Each completion is run once here and K - 1 times there; the gradients of all weights are the same."""
    rng = random.Random(2)
    words = ["one", "two", "three", "four", "five", "six"]
    base = save_tiny_model(tmp_path / "base", "llama")
    template = ChatTemplate(load_tokenizer(base))
    given = []
    for i, count in enumerate((2, 4, 5)):
        chosen = rng.sample(words, count)
        ranks = tuple(rng.randint(0, 2) for _ in chosen[1:])
        given.append(Ranking(prompt("say " + "more " * i, i), tuple(chosen), (3, *ranks)))
    rankings = Encoder(template, DataConfig(), BadRows(OnBadRow.refuse, None)).rankings(given)
    model: Any = load_reward_model(base, ModelConfig(), fresh_head=True)
    torch.nn.init.normal_(model.score.weight, generator=torch.Generator().manual_seed(0))
    context = make_context(tmp_path / "reward", config_for(base), {"policy": base}, ListSource())
    pad = model.config.pad_token_id
    trainer = build_trainer(context, model, pad, rankings, lambda *_: {})

    def gradients() -> list[Tensor]:
        found = [p.grad.clone() for p in model.parameters() if p.grad is not None]
        model.zero_grad()
        return found

    trainer.compute_loss(model, KWayCollator(pad)(list(rankings)), num_items_in_batch=torch.tensor(3)).backward()
    kway = gradients()
    total = torch.zeros(())
    for ranking in rankings:
        ranks = ranking.ranking.ranks
        pairs = [(i, j) for i in range(len(ranks)) for j in range(len(ranks)) if ranks[i] < ranks[j]]
        for i, j in pairs:
            better, worse = (model(input_ids=torch.tensor([ranking.sequences[k]])).logits[0, 0] for k in (i, j))
            total = total - F.logsigmoid(better - worse) / len(pairs) / len(rankings)
    total.backward()
    pairwise = gradients()
    assert len(kway) == len(pairwise) == len(list(model.parameters()))
    assert max(float(grad.abs().max()) for grad in kway) > 1e-3
    for one, other in zip(kway, pairwise, strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-4)

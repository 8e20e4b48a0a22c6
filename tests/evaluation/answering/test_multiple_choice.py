from __future__ import annotations

import sys
from pathlib import Path

import pytest
import torch

from rlhf.config import ModelConfig
from rlhf.data.records import MultipleChoice
from rlhf.errors import UserError
from rlhf.evaluation.answering.multiple_choice import chosen, encode, option_logprobs
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from tests.support.ranks import run_ranks
from tests.support.tiny import save_tiny_model

ITEMS = [
    MultipleChoice("the sky is", (" blue", " green and the grass is green", " a pear"), 0),
    MultipleChoice("sort the words pear apple fig.", (" apple fig pear", " fig"), 1),
    MultipleChoice("the colour of", (" the grass", " the sky", " it", " apple"), 2),
]


@pytest.mark.parametrize("architecture", ["gpt2", "llama"])
@pytest.mark.parametrize("token_budget", [1, 60, 10_000])
def test_an_option_has_the_sum_of_its_tokens_after_the_context(
    tmp_path: Path, architecture: str, token_budget: int
) -> None:
    path = save_tiny_model(tmp_path, architecture)
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    found = option_logprobs(model, tokenizer, ITEMS, token_budget=token_budget)
    for item, sums in zip(ITEMS, found, strict=True):
        for option, total in zip(item.options, sums, strict=True):
            before, ids = len(tokenizer.encode(item.context)), tokenizer.encode(item.context + option)
            with torch.no_grad():
                logprobs = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
            expected = sum(float(logprobs[t - 1, ids[t]]) for t in range(before, len(ids)))
            assert total == pytest.approx(expected, abs=1e-4)


def test_an_option_is_tokenised_behind_its_context_and_not_alone() -> None:
    tokenizer = load_tokenizer("builtin:sandbox-m")
    context, option = "The capital of Zoria is L", "ume."
    whole = tokenizer.encode(context + option)
    assert tokenizer.encode(context) + tokenizer.encode(option) != whole
    assert encode(tokenizer, context, option) == (tokenizer.encode(context), whole[len(tokenizer.encode(context)) :])


def test_an_option_that_is_no_token_of_its_own_is_refused() -> None:
    with pytest.raises(UserError, match="'ume' that only lengthens the last word"):
        encode(load_tokenizer("builtin:sandbox-m"), "The capital of Zoria is L", "ume")


def test_a_space_that_ends_the_context_belongs_to_the_option() -> None:
    tokenizer = load_tokenizer("builtin:sandbox-m")
    assert encode(tokenizer, "A cow says ", "moo.") == encode(tokenizer, "A cow says", " moo.")


def test_the_likeliest_option_is_chosen_and_the_first_of_equal_ones() -> None:
    assert chosen([[-3.0, -1.0, -2.0], [-1.0, -5.0], [-2.0, -2.0]]) == [1, 0, 0]


def test_an_item_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path, "gpt2")
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    context = model.config.max_position_embeddings
    long = MultipleChoice("the sky is blue and " * context, (" green", " blue"), 0)
    with pytest.raises(UserError, match=rf"item of \d+ tokens and .* takes {context}"):
        option_logprobs(model, tokenizer, [*ITEMS, long])


@pytest.mark.slow
def test_two_processes_find_what_one_does(tmp_path: Path) -> None:
    path = save_tiny_model(tmp_path)
    own = option_logprobs(load_causal_lm(path, ModelConfig()), load_tokenizer(path), ITEMS)
    for said in run_ranks(2, "tests.evaluation.answering.test_multiple_choice", path):
        found = [[float(number) for number in line.split()] for line in said.strip().splitlines()[-len(ITEMS) :]]
        for ours, theirs in zip(own, found, strict=True):
            assert theirs == pytest.approx(ours, abs=1e-5)


if __name__ == "__main__":
    from rlhf.config import Device
    from rlhf.runtime import distributed

    distributed.join(Device.cpu)
    tiny = sys.argv[1]
    for sums in option_logprobs(load_causal_lm(tiny, ModelConfig()), load_tokenizer(tiny), ITEMS):
        print(*sums)

from __future__ import annotations

import pytest
import torch

from rlhf.config import ArchitectureConfig
from rlhf.data.records import Message, Prompt, Role
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.pretraining import packed as packing
from rlhf.pretraining.base import END, build_model, train_tokenizer
from rlhf.pretraining.packed import PackedTexts

TEXTS = [f"Anna has {i} red hats. Ben saw {i} cows." for i in range(200)]
TOKENIZER = train_tokenizer(TEXTS, vocab_size=400, context=128)


@pytest.mark.parametrize("text", ["Anna has 123 red hats.", "7 + 5 = 12.", "job: cook, city: Lume.", "Größe?"])
def test_tokenizer_gives_text_back(text: str) -> None:
    assert TOKENIZER.decode(TOKENIZER(text).input_ids).removeprefix(" ") == text


def test_first_word_of_a_response_is_one_token_as_anywhere() -> None:
    template = ChatTemplate(TOKENIZER)
    prompt = Prompt("x", (Message(Role.user, "Anna has hats."),))
    assert template.response_ids("Anna has red hats.") == [
        *TOKENIZER(" Anna has red hats.").input_ids,
        TOKENIZER.eos_token_id,
    ]
    assert template.prompt_text(prompt) == "User: Anna has hats.\nAssistant:"


def test_end_and_pad_differ() -> None:
    assert TOKENIZER.eos_token == END
    assert TOKENIZER.pad_token_id != TOKENIZER.eos_token_id


def test_packing_puts_an_end_token_after_each_document_and_drops_only_the_tail() -> None:
    packed = PackedTexts(TEXTS, TOKENIZER, length=32, key="pretrain.sequence_length")
    ids = [i for text in TEXTS for i in [*TOKENIZER(text).input_ids, TOKENIZER.eos_token_id]]
    assert packed.blocks.flatten().tolist() == ids[: len(ids) // 32 * 32]


def test_packing_reads_no_more_text_than_is_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_AT_ONCE", 2)
    whole = PackedTexts(TEXTS, TOKENIZER, length=32, key="k")
    assert len(whole) > 3
    few = PackedTexts([*TEXTS[:-2], 1, 2], TOKENIZER, length=32, key="k", most=3)  # a number cannot be read as text
    assert torch.equal(few.blocks, whole.blocks[:3])


def test_too_little_text_is_refused() -> None:
    with pytest.raises(UserError, match=r"lower ppo\.ptx\.sequence_length"):
        PackedTexts(["short"], TOKENIZER, length=64, key="ppo.ptx.sequence_length")


def test_a_vocabulary_below_the_bytes_is_refused() -> None:
    with pytest.raises(UserError, match=r"model\.architecture\.vocab_size is 100"):
        train_tokenizer(TEXTS, vocab_size=100, context=128)


def test_model_has_the_shape_asked_for() -> None:
    model = build_model(ArchitectureConfig(hidden_size=32, intermediate_size=64, layers=2, heads=2), TOKENIZER)
    assert (model.config.hidden_size, model.config.num_hidden_layers) == (32, 2)
    assert model.get_input_embeddings().weight is model.get_output_embeddings().weight
    assert model.config.vocab_size == len(TOKENIZER)

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import PreTrainedTokenizerFast

from rlhf.config import DataConfig, OnBadRow, Template
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder
from rlhf.data.records import Demonstration, Message, Prompt, Role
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.sft import IGNORED, demonstration_row
from tests.tiny import build_tokenizer

TOKENIZERS = {
    "pad_is_end": build_tokenizer(),
    "own_pad": build_tokenizer(pad=True),
    "start_token": build_tokenizer(bos=True),
    "own_template": build_tokenizer(chat_template=True),
    "own_template_and_start": build_tokenizer(chat_template=True, bos=True),
}
for tokenizer in TOKENIZERS.values():
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token

texts = st.text(min_size=1, max_size=40).filter(str.strip)
turns = st.lists(texts, min_size=1, max_size=5).map(
    lambda parts: tuple(
        Message(Role.user if (len(parts) - i) % 2 else Role.assistant, text) for i, text in enumerate(parts)
    )
)


def templates() -> list[tuple[str, PreTrainedTokenizerFast, Template]]:
    return [(name, tokenizer, template) for name, tokenizer in TOKENIZERS.items() for template in Template]


@pytest.mark.parametrize(("name", "tokenizer", "template"), templates())
@settings(max_examples=25, deadline=None)
@given(messages=turns, response=texts)
def test_prompt_is_a_prefix_and_the_mask_covers_exactly_response_and_end(
    name: str, tokenizer: PreTrainedTokenizerFast, template: Template, messages: tuple[Message, ...], response: str
) -> None:
    chat = ChatTemplate(tokenizer, template)
    prompt = Prompt("p", messages)
    encoder = Encoder(chat, DataConfig(), BadRows(OnBadRow.refuse, None))
    row = demonstration_row(encoder.demonstrations([Demonstration(prompt, response)])[0])
    prompt_ids = chat.prompt_ids(prompt)
    assert row["input_ids"][: len(prompt_ids)] == prompt_ids
    assert row["labels"][: len(prompt_ids)] == [IGNORED] * len(prompt_ids)
    rest = row["input_ids"][len(prompt_ids) :]
    assert row["labels"][len(prompt_ids) :] == rest
    assert rest[-1] == tokenizer.eos_token_id  # learned, whether or not it is the pad token too
    assert rest.count(tokenizer.eos_token_id) == 1
    assert chat.decode(rest) == response.strip()


@pytest.mark.parametrize("template", list(Template))
@pytest.mark.parametrize("name", ["start_token", "own_template_and_start"])
def test_start_token_is_never_doubled(name: str, template: Template) -> None:
    tokenizer = TOKENIZERS[name]
    chat = ChatTemplate(tokenizer, template)
    ids = chat.prompt_ids(Prompt("p", (Message(Role.user, "what is the sky?"),)))
    own = chat.template == Template.auto
    assert ids.count(tokenizer.bos_token_id) == (0 if own else 1)
    assert tokenizer.bos_token_id not in chat.response_ids("the sky is blue")


def test_template_that_writes_its_start_token_has_one() -> None:
    tokenizer = build_tokenizer(bos=True)
    tokenizer.chat_template = "{{ bos_token }}{% for m in messages %}{{ m.content }}\n{% endfor %}"
    ids = ChatTemplate(tokenizer).prompt_ids(Prompt("p", (Message(Role.user, "one"),)))
    assert ids[0] == tokenizer.bos_token_id
    assert ids.count(tokenizer.bos_token_id) == 1


def test_end_token_in_the_data_is_not_doubled() -> None:
    chat = ChatTemplate(TOKENIZERS["pad_is_end"])
    assert chat.response_ids("yes <|endoftext|>\n") == chat.response_ids("yes")


def test_plain_layout() -> None:
    chat = ChatTemplate(TOKENIZERS["pad_is_end"])
    prompt = Prompt("p", (Message(Role.user, "Hi."), Message(Role.assistant, "Yes?"), Message(Role.user, "Why?")))
    assert chat.prompt_text(prompt) == "Human: Hi.\n\nAssistant: Yes?\n\nHuman: Why?\n\nAssistant:"
    ids = chat.prompt_ids(prompt) + chat.response_ids("Because.", ended=False)
    assert chat.tokenizer.decode(ids) == chat.prompt_text(prompt) + " Because."


def test_chatml_layout() -> None:
    chat = ChatTemplate(TOKENIZERS["pad_is_end"], Template.chatml)
    prompt = Prompt("p", (Message(Role.system, "Be brief."), Message(Role.user, "Hi.")))
    assert chat.prompt_text(prompt) == (
        "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
    )
    assert chat.tokenizer.decode(chat.response_ids("Yes.", ended=False)) == "Yes."


def test_own_template_decides_the_layout_and_the_space_before_a_response() -> None:
    chat = ChatTemplate(TOKENIZERS["own_template"])
    prompt = Prompt("p", (Message(Role.user, "Hi."),))
    assert chat.prompt_text(prompt) == "User: Hi.\nAssistant:"
    whole = chat.tokenizer.decode(chat.prompt_ids(prompt) + chat.response_ids("Yes."))
    assert whole == "User: Hi.\nAssistant: Yes.<|endoftext|>"


def test_hash_tells_layouts_apart_and_is_stable() -> None:
    hashes = {(name, template): ChatTemplate(tokenizer, template).hash for name, tokenizer, template in templates()}
    assert hashes["pad_is_end", Template.auto] == hashes["pad_is_end", Template.plain]
    assert len({hashes["own_template", template] for template in Template}) == 3
    assert ChatTemplate(build_tokenizer()).hash == hashes["pad_is_end", Template.plain]


def test_template_that_refuses_a_conversation_names_the_setting() -> None:
    tokenizer = build_tokenizer()
    tokenizer.chat_template = "{% if messages[0].role == 'system' %}{{ raise_exception('no system') }}{% endif %}x"
    prompt = Prompt("p", (Message(Role.system, "a"), Message(Role.user, "b")))
    with pytest.raises(UserError, match=r"no system.*data\.template=plain"):
        ChatTemplate(tokenizer).prompt_text(prompt)

"""Each layout's text against what its authors published, one turn and several."""

from __future__ import annotations

import pytest

from rlhf.config import Template
from rlhf.data.layouts import LAYOUTS
from rlhf.data.records import Message, Prompt, Role
from rlhf.data.templates import ChatTemplate
from tests.support.tiny import build_tokenizer

SYSTEM = Message(Role.system, "Be brief.")
HI = Message(Role.user, "Hi.")
YES = Message(Role.assistant, "Yes?")
WHY = Message(Role.user, "Why?")
SORT = Message(Role.user, "Sort these.\n\npear apple", input="pear apple")
ALPACA = "Below is an instruction that describes a task"
VICUNA = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


def laid_out(template: Template, *messages: Message) -> str:
    """The conversation and the response "Because." as one text, with the end token </s>."""
    tokenizer = build_tokenizer(special=["</s>", "<|im_end|>", "<|eot_id|>"])
    tokenizer.eos_token = "</s>"
    chat = ChatTemplate(tokenizer, template)
    prompt = Prompt("p", messages)
    ids = chat.prompt_ids(prompt)
    assert tokenizer.decode(ids) == chat.prompt_text(prompt)
    return str(tokenizer.decode(ids + chat.response_ids("Because.")))


def test_every_named_template_has_a_layout() -> None:
    assert {*LAYOUTS, Template.auto} == set(Template)


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([HI], "Human: Hi.\n\nAssistant: Because.</s>"),
        (
            [SYSTEM, HI, YES, WHY],
            "Be brief.\n\nHuman: Hi.\n\nAssistant: Yes?</s>\n\nHuman: Why?\n\nAssistant: Because.</s>",
        ),
    ],
)
def test_plain(messages: list[Message], text: str) -> None:
    assert laid_out(Template.plain, *messages) == text


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([HI], "<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>"),
        (
            [SYSTEM, HI, YES, WHY],
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi.<|im_end|>\n<|im_start|>assistant\n"
            "Yes?<|im_end|>\n<|im_start|>user\nWhy?<|im_end|>\n<|im_start|>assistant\nBecause.<|im_end|>",
        ),
    ],
)
def test_chatml(messages: list[Message], text: str) -> None:
    assert laid_out(Template.chatml, *messages) == text


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            [Message(Role.user, " Hi.\n")],
            "<|start_header_id|>user<|end_header_id|>\n\nHi.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nBecause.<|eot_id|>",
        ),
        (
            [SYSTEM, HI, YES, WHY],
            "<|start_header_id|>system<|end_header_id|>\n\nBe brief.<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nHi.<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nYes?<|eot_id|>"
            "<|start_header_id|>user<|end_header_id|>\n\nWhy?<|eot_id|>"
            "<|start_header_id|>assistant<|end_header_id|>\n\nBecause.<|eot_id|>",
        ),
    ],
)
def test_llama3(messages: list[Message], text: str) -> None:
    assert laid_out(Template.llama3, *messages) == text


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        (
            [HI],
            f"{ALPACA}. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nHi.\n\n### Response:Because.</s>",
        ),
        (
            [SORT],
            f"{ALPACA}, paired with an input that provides further context. Write a response that appropriately "
            "completes the request.\n\n"
            "### Instruction:\nSort these.\n\n### Input:\npear apple\n\n### Response:Because.</s>",
        ),
        (
            [HI, YES, SORT],
            f"{ALPACA}. Write a response that appropriately completes the request.\n\n"
            "### Instruction:\nHi.\n\n### Response:Yes?</s>\n\n"
            "### Instruction:\nSort these.\n\n### Input:\npear apple\n\n### Response:Because.</s>",
        ),
        (
            [SYSTEM, SORT],
            "Be brief.\n\n### Instruction:\nSort these.\n\n### Input:\npear apple\n\n### Response:Because.</s>",
        ),
    ],
)
def test_alpaca(messages: list[Message], text: str) -> None:
    assert laid_out(Template.alpaca, *messages) == text


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([HI], f"{VICUNA} USER: Hi. ASSISTANT: Because.</s>"),
        ([HI, YES, WHY], f"{VICUNA} USER: Hi. ASSISTANT: Yes?</s>USER: Why? ASSISTANT: Because.</s>"),
        ([SYSTEM, HI, YES, WHY], "Be brief. USER: Hi. ASSISTANT: Yes?</s>USER: Why? ASSISTANT: Because.</s>"),
    ],
)
def test_vicuna(messages: list[Message], text: str) -> None:
    assert laid_out(Template.vicuna, *messages) == text


@pytest.mark.parametrize(
    ("messages", "text"),
    [
        ([HI], "<|user|>\nHi.</s>\n<|assistant|>\nBecause.</s>"),
        (
            [SYSTEM, HI, YES, WHY],
            "<|system|>\nBe brief.</s>\n<|user|>\nHi.</s>\n<|assistant|>\nYes?</s>\n"
            "<|user|>\nWhy?</s>\n<|assistant|>\nBecause.</s>",
        ),
    ],
)
def test_zephyr(messages: list[Message], text: str) -> None:
    assert laid_out(Template.zephyr, *messages) == text

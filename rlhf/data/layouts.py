"""The named chat layouts, as text: what stands before, between and after the assistant's turns.

A conversation is segment, reply, segment, reply, ..., segment. A segment holds the turns of everyone but the assistant
and ends with the words that hand over to it; a reply is `lead`, the text and the end token.

plain:  "Human: ...\\n\\nAssistant: ...", the form of Anthropic's dialogues; a system message stands first, bare.
chatml: OpenAI's; the template of Qwen and many others.
llama3: Meta's, of Llama 3 Instruct.
alpaca: Stanford's (train.py of tatsu-lab/stanford_alpaca). It has one turn; later ones repeat its headings.
vicuna: version 1.1 (fastchat/conversation.py of lm-sys/FastChat).
zephyr: Hugging Face's, of zephyr-7b-beta.

None of them writes a start token: that is the tokenizer's.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rlhf.config import Template
from rlhf.data.records import Message, Role

_ALPACA_PREAMBLE = (
    "Below is an instruction that describes a task. Write a response that appropriately completes the request."
)
_ALPACA_PREAMBLE_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further context. "
    "Write a response that appropriately completes the request."
)
_VICUNA_SYSTEM = (
    "A chat between a curious user and an artificial intelligence assistant. "
    "The assistant gives helpful, detailed, and polite answers to the user's questions."
)


@dataclass(frozen=True)
class Layout:
    segment: Callable[[Sequence[Message], bool, str], str]  # turns, none of the assistant; whether first; end token
    lead: str = ""  # between a segment and the assistant's first word
    end: str | None = None  # the layout's own end token; None: the tokenizer's


def _plain(messages: Sequence[Message], first: bool, end: str) -> str:
    turns = [m.content if m.role == Role.system else f"Human: {m.content}" for m in messages]
    return ("" if first else "\n\n") + "\n\n".join([*turns, "Assistant:"])


def _chatml(messages: Sequence[Message], first: bool, end: str) -> str:
    turns = [f"<|im_start|>{m.role.value}\n{m.content}<|im_end|>\n" for m in messages]
    return "".join(["" if first else "\n", *turns, "<|im_start|>assistant\n"])


def _llama3(messages: Sequence[Message], first: bool, end: str) -> str:
    turns = [f"{_llama3_header(m.role)}{m.content.strip()}<|eot_id|>" for m in messages]
    return "".join([*turns, _llama3_header(Role.assistant)])


def _llama3_header(role: Role) -> str:
    return f"<|start_header_id|>{role.value}<|end_header_id|>\n\n"


def _alpaca(messages: Sequence[Message], first: bool, end: str) -> str:
    blocks = [block for message in messages for block in _alpaca_blocks(message)]
    if first and not any(m.role == Role.system for m in messages):
        asked_with_input = any(m.input for m in messages)
        blocks = [_ALPACA_PREAMBLE_INPUT if asked_with_input else _ALPACA_PREAMBLE, *blocks]
    return ("" if first else "\n\n") + "\n\n".join([*blocks, "### Response:"])


def _alpaca_blocks(message: Message) -> list[str]:
    if message.role == Role.system:
        return [message.content]
    if not message.input:
        return [f"### Instruction:\n{message.content}"]
    instruction = message.content.removesuffix(message.input).rstrip()
    return [f"### Instruction:\n{instruction}", f"### Input:\n{message.input}"]


def _vicuna(messages: Sequence[Message], first: bool, end: str) -> str:
    turns = [m.content if m.role == Role.system else f"USER: {m.content}" for m in messages]
    if first and not any(m.role == Role.system for m in messages):
        turns = [_VICUNA_SYSTEM, *turns]
    return " ".join([*turns, "ASSISTANT:"])


def _zephyr(messages: Sequence[Message], first: bool, end: str) -> str:
    turns = [f"<|{m.role.value}|>\n{m.content}{end}\n" for m in messages]
    return "".join(["" if first else "\n", *turns, "<|assistant|>\n"])


LAYOUTS = {
    Template.plain: Layout(_plain, lead=" "),
    Template.chatml: Layout(_chatml, end="<|im_end|>"),
    Template.llama3: Layout(_llama3, end="<|eot_id|>"),
    Template.alpaca: Layout(_alpaca),
    Template.vicuna: Layout(_vicuna, lead=" "),
    Template.zephyr: Layout(_zephyr),
}

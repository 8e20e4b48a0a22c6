"""How a conversation becomes token ids, the same way in every stage.

The prompt and the response are tokenised apart and joined, so the prompt is always a token prefix, whatever the
tokenizer would merge across the seam. A response ends with the tokenizer's end token.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from functools import cached_property
from typing import TYPE_CHECKING

from rlhf.config import Template
from rlhf.data.records import Message, Prompt, Role
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PLAIN_NAMES = {Role.user: "Human", Role.assistant: "Assistant"}
_PROBE = "Probe"


class ChatTemplate:
    """Renders prompts and responses for one tokenizer.

    auto:   the tokenizer's own chat template, `plain` when it has none.
    plain:  "Human: ...\\n\\nAssistant: ...", the form of Anthropic's dialogues; a system message stands first, bare.
    chatml: "<|im_start|>user\\n...<|im_end|>\\n".
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template = Template.auto) -> None:
        self.tokenizer = tokenizer
        own = getattr(tokenizer, "chat_template", None)
        self.template = Template.plain if template == Template.auto and not own else template

    def prompt_text(self, prompt: Prompt) -> str:
        """The conversation up to where the assistant is to speak."""
        return self._render(prompt.messages, generation=True)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        ids = self._encode(self.prompt_text(prompt))
        if self.template == Template.auto:
            return ids  # a tokenizer's own template writes its start token itself
        start = self._start_ids
        return ids if ids[: len(start)] == start else [*start, *ids]

    def response_ids(self, text: str, ended: bool = True) -> list[int]:
        """The response's tokens, then the end token if it `ended`; never two of those."""
        end = self.tokenizer.eos_token
        text = text.strip()
        while text.endswith(end):
            text = text.removesuffix(end).rstrip()
        ids = self._encode(self._lead + text)
        return [*ids, self.tokenizer.eos_token_id] if ended else ids

    def decode(self, ids: Sequence[int]) -> str:
        """A response's text, special tokens removed, stripped."""
        kept = [i for i in ids if i != self.tokenizer.eos_token_id]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    @cached_property
    def hash(self) -> str:
        """sha256 of everything that decides how text is laid out: two models share it or must not meet."""
        conversation = (Message(Role.user, "one"), Message(Role.assistant, "two"), Message(Role.user, "three"))
        rendered = self._render(conversation, generation=True)
        parts = [self.template.value, rendered, self._lead, self.tokenizer.eos_token, self._start_ids]
        if self.template == Template.auto:
            parts.append(self.tokenizer.chat_template)
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    @cached_property
    def _lead(self) -> str:
        """What the template writes between the generation prompt and the assistant's first word."""
        user = (Message(Role.user, _PROBE),)
        before = self._render(user, generation=True)
        whole = self._render((*user, Message(Role.assistant, _PROBE)), generation=False)
        if whole.startswith(before) and _PROBE in whole[len(before) :]:
            return whole[len(before) :].split(_PROBE, 1)[0]
        # Templates that rewrite finished turns (stripping reasoning, say) do not show it; a word needs its space.
        return "" if before[-1:].isspace() or before.endswith((">", "]")) else " "

    @cached_property
    def _start_ids(self) -> list[int]:
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    def _encode(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False, verbose=False).input_ids
        return ids

    def _render(self, messages: Sequence[Message], *, generation: bool) -> str:
        if self.template == Template.plain:
            return _render_plain(messages, generation)
        if self.template == Template.chatml:
            return _render_chatml(messages, generation)
        conversation = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(conversation, tokenize=False, add_generation_prompt=generation)
        except Exception as error:  # templates raise what they like: Jinja errors, their own, TypeErrors
            raise UserError(
                f"The tokenizer's own chat template refuses a conversation of "
                f"{', '.join(m.role.value for m in messages)} turns ({error}); set data.template=plain or chatml."
            ) from error
        return str(text)


def _render_plain(messages: Sequence[Message], generation: bool) -> str:
    turns = [m.content if m.role == Role.system else f"{_PLAIN_NAMES[m.role]}: {m.content}" for m in messages]
    return "\n\n".join([*turns, "Assistant:"] if generation else turns)


def _render_chatml(messages: Sequence[Message], generation: bool) -> str:
    turns = [f"<|im_start|>{m.role.value}\n{m.content}<|im_end|>\n" for m in messages]
    return "".join([*turns, "<|im_start|>assistant\n"] if generation else turns)

"""How a conversation becomes token ids, the same way in every stage.

A conversation is tokenised in pieces: what stands between the assistant's turns by itself, and each of those turns as
the model would have written it, its end token too. So a prompt is always a token prefix of the conversation that goes
on from it, whatever the tokenizer would merge across the seams.
"""

from __future__ import annotations

import bisect
import hashlib
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import date
from functools import cached_property
from typing import TYPE_CHECKING

from rlhf.config import Template
from rlhf.data.layouts import LAYOUTS
from rlhf.data.records import Message, Prompt, Role
from rlhf.data.special_tokens import SpecialTokens
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_PROBE = "Probe"
_CONVERSATION = (
    Message(Role.user, "one\n\ntwo", input="two"),
    Message(Role.assistant, "three"),
    Message(Role.user, "four"),
)
# What "today" is to a template. Those of Llama 3.2, SmolLM3 and others write the date of rendering into the system
# message, and a prompt must be the same in training, in rollouts and in a comparison a month later. It is the day that
# Llama 3.2's template writes where there is no clock.
_TODAY = date(2024, 7, 26)


class ChatTemplate:
    """Renders prompts and responses for one tokenizer, whose end token becomes the template's.

    template: auto is the tokenizer's own chat template, `plain` when it has none; the others are in rlhf.data.layouts.
    Raises UserError when the tokenizer's own template refuses a question and its answer.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: Template = Template.auto) -> None:
        self.tokenizer = tokenizer
        own = getattr(tokenizer, "chat_template", None)
        self.template = Template.plain if template == Template.auto and not own else template
        self._layout = LAYOUTS.get(self.template)  # None: the tokenizer's own
        self._special = SpecialTokens(tokenizer)
        # Rollouts, reward models' sequences, vLLM and the saved tokenizer all end a response at tokenizer.eos_token.
        # A base model's is often the end of a document, while its chat template ends turns with another token, which
        # chat models are then published with. Setting it here leaves one end token everywhere.
        self._end = self._end_token()
        if tokenizer.eos_token != self._end:
            tokenizer.eos_token = self._end
        self._end_id = int(tokenizer.eos_token_id)

    def prompt_text(self, prompt: Prompt) -> str:
        """The conversation up to where the assistant is to speak, without a start token that the tokenizer adds."""
        parts = self._parts(prompt.messages)
        text = "".join(part + self._end if is_reply else part for part, is_reply in _in_turn(parts))
        return self._special.unescape(text)

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Where `segmented`, it starts with the ids of the conversation's earlier prompts, each with its reply's."""
        return [i for ids, _ in self._pieces(self._parts(prompt.messages)) for i in ids]

    def prompt_mask(self, prompt: Prompt) -> list[bool]:
        """As long as prompt_ids; True on the assistant's earlier turns, text and end token.

        Raises UserError where the tokenizer's own template does not show where they are.
        """
        parts = self._parts(prompt.messages)
        if len(parts) == 1 and any(message.role == Role.assistant for message in prompt.messages):
            raise UserError(
                f"The chat template of the tokenizer {self.tokenizer.name_or_path or 'in use'} (data.template=auto) "
                "writes the assistant's earlier turns otherwise than the model would, so they cannot be trained on; "
                "use sft.loss_on=last, or another template, such as data.template=chatml."
            )
        return [is_reply for ids, is_reply in self._pieces(parts) for _ in ids]

    def response_ids(self, text: str, ended: bool = True) -> list[int]:
        """The response's tokens, then the end token if it `ended`; never two of those."""
        ids = self._special.encode(self._lead + self._special.escape(self._without_end(text)))
        return [*ids, self._end_id] if ended else ids

    def decode(self, ids: Sequence[int]) -> str:
        """A response's text, special tokens removed, stripped."""
        kept = [i for i in ids if i != self._end_id]
        text = self.tokenizer.decode(kept, skip_special_tokens=True, clean_up_tokenization_spaces=False)
        return str(text).strip()

    def fit(self, prompt: Prompt, limit: int) -> Prompt | None:
        """The prompt without its oldest exchanges, as few as bring it down to `limit` tokens; itself when it has those.

        System messages at the start stay, and a user's turn follows. None when not even the last of those fits.
        """
        if len(self.prompt_ids(prompt)) <= limit:
            return prompt
        messages = prompt.messages
        opening = next((i for i, m in enumerate(messages) if m.role != Role.system), len(messages))
        shorter = [
            replace(prompt, messages=(*messages[:opening], *messages[start:]))
            for start in range(opening + 1, len(messages))
            if messages[start].role == Role.user
        ]
        first = bisect.bisect_left(shorter, True, key=lambda candidate: len(self.prompt_ids(candidate)) <= limit)
        return shorter[first] if first < len(shorter) else None

    @cached_property
    def segmented(self) -> bool:
        """Whether earlier turns of the assistant stand in a prompt as the model would have written them.

        False for a tokenizer's own template that rewrites finished turns, as some do to leave out reasoning: prompts of
        several turns are then tokenised in one piece, as it renders them.
        """
        return len(self._parts_if_allowed(_CONVERSATION)) == 3

    @cached_property
    def hash(self) -> str:
        """sha256 of everything that decides how text is laid out: two models share it or must not meet."""
        system = Message(Role.system, "five")
        conversations = (_CONVERSATION[:1], _CONVERSATION, (system, *_CONVERSATION))
        rendered = [self._parts_if_allowed(conversation) for conversation in conversations]
        own = self.tokenizer.chat_template if self._layout is None else None
        parts = [self.template.value, own, rendered, self._lead, self._end, self._start_ids]
        return hashlib.sha256(json.dumps(parts).encode()).hexdigest()

    def _pieces(self, parts: Sequence[str]) -> Iterator[tuple[list[int], bool]]:
        """A prompt's ids, piece after piece, and whether they are the assistant's."""
        yield self._start_ids, False
        after = ""
        for part, is_reply in _in_turn(parts):
            if is_reply:
                yield [*self._special.encode(part), self._end_id], True
                after = self._end
            else:
                yield self._special.encode(part, after=after), False

    def _parts(self, messages: Sequence[Message]) -> list[str]:
        """Segment, reply, segment, ..., segment, escaped, replies with their lead and without their end token.

        One part where the tokenizer's own template does not show where replies are.
        """
        escaped = [self._escape(message) for message in messages]
        if self._layout is None:
            return self._own_parts(escaped)
        parts: list[str] = []
        turns: list[Message] = []
        for message in escaped:
            if message.role == Role.assistant:
                parts += [self._layout.segment(turns, not parts, self._end), self._lead + message.content]
                turns = []
            else:
                turns.append(message)
        return [*parts, self._layout.segment(turns, not parts, self._end)]

    def _own_parts(self, messages: Sequence[Message]) -> list[str]:
        whole = self._render(messages, generation=True)
        parts: list[str] = []
        start = 0
        for index, message in enumerate(messages):
            if message.role != Role.assistant:
                continue
            before = self._render(messages[:index], generation=True) if index else ""
            reply = self._lead + message.content
            if not before or not whole.startswith(before + reply):
                return [whole]
            parts += [whole[start : len(before)], reply]
            start = len(before) + len(reply)
            # A template may put a space before its end token, as Llama 2's does.
            marker = re.compile(r"\s*" + re.escape(self._end)).match(whole, start)
            start = marker.end() if marker else start
        return [*parts, whole[start:]]

    def _parts_if_allowed(self, messages: Sequence[Message]) -> list[str]:
        """None of them for a conversation that the tokenizer's own template refuses."""
        try:
            return self._parts(messages)
        except UserError:
            return []

    def _end_token(self) -> str:
        """The template's own, if it is a special token of the vocabulary; else the tokenizer's."""
        if self._layout is not None:
            end = self._layout.end
        else:
            after = self._render_probe()[1].rpartition(_PROBE)[2].lstrip()
            end = next((name for name in self._special.ids if after.startswith(name)), None)
        return end if end in self._special.ids else str(self.tokenizer.eos_token)

    @cached_property
    def _lead(self) -> str:
        """What the template writes between the generation prompt and the assistant's first word."""
        if self._layout is not None:
            return self._layout.lead
        before, whole = self._render_probe()
        if whole.startswith(before) and _PROBE in whole[len(before) :]:
            return whole[len(before) :].split(_PROBE, 1)[0]
        # Templates that rewrite finished turns (stripping reasoning, say) do not show it; a word needs its space.
        return "" if before[-1:].isspace() or before.endswith((">", "]")) else " "

    def _render_probe(self) -> tuple[str, str]:
        """A question up to where the assistant is to speak, and with its answer, in the tokenizer's own template."""
        conversation = (Message(Role.user, _PROBE), Message(Role.assistant, _PROBE))
        return self._render(conversation[:1], generation=True), self._render(conversation, generation=False)

    @cached_property
    def _start_ids(self) -> list[int]:
        if self._layout is None:
            return []  # a tokenizer's own template writes its start token itself
        bos = self.tokenizer.bos_token_id
        return [bos] if bos is not None and self.tokenizer("").input_ids[:1] == [bos] else []

    def _escape(self, message: Message) -> Message:
        if message.role == Role.assistant:
            return replace(message, content=self._special.escape(self._without_end(message.content)))
        given = self._special.escape(message.input)
        content = self._special.escape(message.content.removesuffix(message.input)) + given
        return replace(message, content=content, input=given)

    def _without_end(self, text: str) -> str:
        text = text.strip()
        while text.endswith(self._end):
            text = text.removesuffix(self._end).rstrip()
        return text

    def _render(self, messages: Sequence[Message], *, generation: bool) -> str:
        """The tokenizer's own template, applied."""
        conversation = [{"role": message.role.value, "content": message.content} for message in messages]
        try:
            text = self.tokenizer.apply_chat_template(
                conversation, tokenize=False, add_generation_prompt=generation, strftime_now=_TODAY.strftime
            )
        except Exception as error:  # templates raise what they like: Jinja errors, their own, TypeErrors
            raise UserError(
                f"The tokenizer's own chat template refuses a conversation of "
                f"{', '.join(m.role.value for m in messages)} turns ({error}); set data.template=plain or chatml."
            ) from error
        return str(text)


def _in_turn(parts: Sequence[str]) -> Iterator[tuple[str, bool]]:
    """Parts, and whether each is a reply."""
    return ((part, index % 2 == 1) for index, part in enumerate(parts))

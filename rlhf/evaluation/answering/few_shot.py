"""A base model is shown how to answer: demonstrations before the prompt, as plain text (arXiv:2203.02155, section 3.5).

InstructGPT compares with GPT-3 by itself and with GPT-3 given "a few-shot prefix to 'prompt' it into an
instruction-following mode". A model that has only been pretrained knows neither a chat template nor its end token, so
the turns stand under labels, a blank line apart, and an answer ends where the next turn would begin.
"""

from __future__ import annotations

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import zip_longest
from typing import TYPE_CHECKING

from rlhf.data.records import Demonstration, Message, Prompt, Role
from rlhf.data.special_tokens import SpecialTokens
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

_LABELS = {Role.user: "User: ", Role.assistant: "Assistant: ", Role.system: ""}
STOPS = ["\nUser:", "\nAssistant:"]  # where the answer ends and another turn begins
_POOL = 2000  # training demonstrations that the shots are chosen from


@dataclass(frozen=True)
class FewShot:
    """The same demonstrations before every prompt, in the tokens of one model."""

    shots: tuple[Demonstration, ...]
    tokenizer: PreTrainedTokenizerBase

    def prompt_text(self, prompt: Prompt) -> str:
        return "\n\n".join([*map(_written_out, self.shots), *map(_turn, prompt.messages), "Assistant:"])

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """As the tokenizer starts a text; a special token that somebody spells is plain text."""
        start = self.tokenizer.bos_token_id
        begins = start is not None and self.tokenizer("").input_ids[:1] == [start]
        return [*([start] if begins else []), *self._special.encode(self._special.escape(self.prompt_text(prompt)))]

    @cached_property
    def _special(self) -> SpecialTokens:
        return SpecialTokens(self.tokenizer)


def choose(
    demonstrations: Sequence[Demonstration],
    count: int,
    tokenizer: PreTrainedTokenizerBase,
    prompts: Sequence[Prompt],
    *,
    context: int | None,
    room: int,
    seed: int,
) -> FewShot:
    """`count` demonstrations that fit before every prompt, fewer when there is no room for as many.

    They take turns over the task families, in an order drawn by `seed`; one that does not fit any more, before the
    longest prompt and `room` for a response, is passed over. context: the model's, in tokens; None: it has no limit.
    Raises UserError when none fits.
    """
    bare = FewShot((), tokenizer)
    left = math.inf if context is None else context - room - max(len(bare.prompt_ids(prompt)) for prompt in prompts)
    order = random.Random(f"few-shot:{seed}").sample(range(len(demonstrations)), min(len(demonstrations), _POOL))
    by_task: dict[str, list[Demonstration]] = {}
    for index in order:
        by_task.setdefault(demonstrations[index].prompt.task, []).append(demonstrations[index])
    shots: list[Demonstration] = []
    for shot in (shot for turn in zip_longest(*by_task.values()) for shot in turn if shot is not None):
        if len(shots) == count:
            break
        tokens = len(tokenizer(_written_out(shot) + "\n\n").input_ids)
        if tokens <= left:
            shots.append(shot)
            left -= tokens
    if not shots:
        raise UserError(
            f"compare.few_shot={count} finds no demonstration among {len(order)} that fits the {left} tokens which the "
            f"longest prompt and rollout.max_new_tokens={room} leave of the context; lower data.max_prompt_tokens, or "
            "set compare.few_shot=0."
        )
    return FewShot(tuple(shots), tokenizer)


def _written_out(shot: Demonstration) -> str:
    return "\n\n".join(map(_turn, (*shot.prompt.messages, Message(Role.assistant, shot.response))))


def _turn(message: Message) -> str:
    return _LABELS[message.role] + message.content

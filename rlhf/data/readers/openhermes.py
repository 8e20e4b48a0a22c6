"""OpenHermes 2.5 and 1: synthetic instructions and chats from many sets (Teknium 2023).

Source, on the hub: teknium/OpenHermes-2.5, one JSON list of 1,001,551 rows with `conversations` of {from, value} and,
in some rows, `system_prompt`, `category`, `source`; teknium/openhermes, 242,831 rows of `instruction`, `input` (may be
empty) and `output`. No licence is stated for the whole; those of the sets it was put together from apply. Most answers
are GPT-4's. Each made the model of its name by supervised fine-tuning on all rows.

`system_prompt` becomes the system turn unless the conversation brings its own. As in ShareGPT, a conversation ends at
the assistant's last turn and begins with the user's first. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.conversations import sharegpt_turns, up_to_last_reply
from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.records import Demonstration, Message, Role


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration; its task is the category. Raises BadRowError."""
    task, system = optional_text(row, "category"), optional_text(row, "system_prompt")
    if "conversations" not in row:
        prompt = user_prompt(text(row, "instruction"), optional_text(row, "input"), system=system, task=task)
        return [Demonstration(prompt, text(row, "output"))]
    turns = sharegpt_turns(row)
    if system and (not turns or turns[0].role != Role.system):
        turns = [Message(Role.system, system), *turns]
    return [up_to_last_reply(turns, column="conversations", task=task)]

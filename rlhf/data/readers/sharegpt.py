"""ShareGPT's conversations, as Vicuna was trained on: `id`, `conversations` of {from, value} (Chiang et al. 2023).

Source: chats that people shared on sharegpt.com. Vicuna's 70,000 (later 125,000) were never published; copies on the
hub, such as anon8231489123/ShareGPT_Vicuna_unfiltered, hold 50,000 to 100,000 rows in Vicuna's format, one JSON list a
file. No licence is stated, and the answers are OpenAI's. `from` is human or gpt; some dumps also have system, user,
chatgpt, bing and bard. Vicuna took the loss over all
assistant turns of a chat.

Kept in part: a chat that ends with the user's turn ends at the assistant's last, and answers before the user's first
turn are skipped, since long chats were cut into pieces anywhere. Two turns of one role in a row are refused: one
between them is missing. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.conversations import own_id, sharegpt_turns, up_to_last_reply
from rlhf.data.records import Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, the last answer of the chat. Raises BadRowError."""
    turns = sharegpt_turns(row)
    return [up_to_last_reply(turns, column="conversations", prompt_id=own_id("sharegpt", row, "id"))]

"""LIMA's curated examples: `conversations`, texts of user and assistant in turn, and `source` (arXiv:2305.11206).

Source: GAIR/lima on the hub, behind a form (CC BY-NC-SA, or stricter where a source is): train.jsonl has 1,030 rows, 30
of them dialogues (source multi_turn), and test.jsonl 300 prompts without an answer. Zhou et al. 2023 fine-tuned on the
1,000 single turns for 15 epochs, then added the 30. A dialogue that ends with the user ends at the assistant's last
turn instead; a row with no answer is a prompt. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.conversations import alternating, up_to_last_reply
from rlhf.data.readers.fields import optional_text, prompt
from rlhf.data.records import Demonstration, Prompt


def read(row: Mapping[str, Any]) -> list[Demonstration] | list[Prompt]:
    """One demonstration, or one prompt; the task is the source. Raises BadRowError."""
    turns = alternating(row.get("conversations"), column="conversations")
    task = optional_text(row, "source")
    if len(turns) == 1:
        return [prompt(turns, task=task, column="conversations")]
    return [up_to_last_reply(turns, column="conversations", task=task)]

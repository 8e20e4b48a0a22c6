"""UltraChat's synthetic dialogues, whole and in Zephyr's selection (Ding et al. 2023, arXiv:2305.14233).

Source, both MIT on the hub: HuggingFaceH4/ultrachat_200k, rows of `prompt`, `prompt_id` and `messages` of
{role, content}, where train_sft has 207,865 rows and test_sft 23,110 (data.split names one); and stingning/ultrachat,
1.5 million rows of `id` and `data`, a list of texts that are the user's and the assistant's in turn. Two ChatGPT models
talked to each other. Zephyr (Tunstall et al. 2023, arXiv:2310.16944) chose the 200k and fine-tuned on them before DPO.

`prompt` repeats the first user turn of `messages` and is not read. A dialogue that ends with the user ends at the
assistant's last turn instead. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.conversations import alternating, own_id, up_to_last_reply
from rlhf.data.readers.fields import messages
from rlhf.data.records import BadRowError, Demonstration, Role

_ROLES = {role.value: role for role in Role}


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, the last answer of the dialogue. Raises BadRowError."""
    if "messages" in row:
        turns = messages(row["messages"], _ROLES, column="messages", role_key="role", text_key="content")
        return [up_to_last_reply(turns, column="messages", prompt_id=own_id("ultrachat", row, "prompt_id"))]
    if "data" in row:
        return [up_to_last_reply(alternating(row["data"], column="data"), column="data")]
    raise BadRowError("it has neither `messages` nor `data`")

"""SlimOrca: FLAN's questions under Orca's system prompts, answered by GPT-4 (Lian et al. 2023).

Source: Open-Orca/SlimOrca on the hub (MIT), 517,982 rows, and Open-Orca/SlimOrca-Dedup, 363,491 rows: `conversations`
of {from, value, weight}, a system turn (absent or blank in some rows), a human's and gpt's. It is the part of OpenOrca,
made after Orca (Mukherjee et al. 2023, arXiv:2306.02707), whose answers GPT-4 judged to agree with FLAN's.
`weight` says which turns take a loss, the assistant's, and is not read. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.conversations import sharegpt_turns, up_to_last_reply
from rlhf.data.records import Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration. Raises BadRowError."""
    return [up_to_last_reply(sharegpt_turns(row), column="conversations")]

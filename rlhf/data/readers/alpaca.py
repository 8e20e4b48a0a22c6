"""Alpaca's rows: `instruction`, `input` (may be empty), `output` (Taori et al. 2023).

Source: tatsu-lab/stanford_alpaca, alpaca_data.json, one JSON list of 52,002 rows (CC BY-NC 4.0: research only), and
many data sets in the same shape, alpaca_farm's (Dubois et al. 2023, arXiv:2305.14387) among them. Alpaca fine-tuned on
all rows under an English preamble, one for rows with an input and one for those without: data.template=alpaca writes
both. Optional: `system`, and `history`, earlier exchanges. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.records import BadRowError, Demonstration, Message, Role


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    system = optional_text(row, "system")
    prompt = user_prompt(text(row, "instruction"), optional_text(row, "input"), system=system)
    opening, asked = prompt.messages[:-1], prompt.messages[-1]
    return [Demonstration(replace(prompt, messages=(*opening, *_history(row), asked)), text(row, "output"))]


def _history(row: Mapping[str, Any]) -> list[Message]:
    """Earlier exchanges, [[instruction, answer], ...], as LLaMA-Factory's files have them."""
    turns = []
    for index, exchange in enumerate(row.get("history") or ()):
        if not isinstance(exchange, list) or len(exchange) != 2 or not all(isinstance(said, str) for said in exchange):
            raise BadRowError(f"`history[{index}]` is not [instruction, answer]")
        if not all(said.strip() for said in exchange):
            raise BadRowError(f"`history[{index}]` is empty or whitespace")
        turns += [Message(Role.user, exchange[0].strip()), Message(Role.assistant, exchange[1].strip())]
    return turns

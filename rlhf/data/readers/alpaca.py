"""Alpaca's rows: `instruction`, `input` (may be empty), `output` (Taori et al. 2023).

Source: tatsu-lab/stanford_alpaca, alpaca_data.json, one JSON list of 52,002 rows (CC BY-NC 4.0: research only), and
many data sets in the same shape, alpaca_farm's (Dubois et al. 2023, arXiv:2305.14387) among them. Alpaca fine-tuned on
all rows under an English preamble, one for rows with an input and one for those without: data.template=alpaca writes
both. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.records import Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    prompt = user_prompt(text(row, "instruction"), optional_text(row, "input"))
    return [Demonstration(prompt, text(row, "output"))]

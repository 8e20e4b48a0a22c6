"""Dolly's rows: `instruction`, `context` (may be empty), `response`, `category` (Conover et al. 2023).

Source: databricks/databricks-dolly-15k on the hub, one JSON object a line, 15,011 rows (CC BY-SA 3.0). Databricks'
employees wrote prompts and answers in seven of InstructGPT's categories and one of their own; closed_qa,
information_extraction and summarization come with a `context`, usually a passage of Wikipedia that still has its
reference marks, such as [42]. Dolly 2.0 was fine-tuned on all rows. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.records import Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration; its task is the category. Raises BadRowError."""
    prompt = user_prompt(text(row, "instruction"), optional_text(row, "context"), task=optional_text(row, "category"))
    return [Demonstration(prompt, text(row, "response"))]

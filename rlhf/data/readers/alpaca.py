"""Alpaca's format: instruction, input, output (Taori et al. 2023; alpaca_farm: Dubois et al. 2023, arXiv:2305.14387).

Source: tatsu-lab/stanford_alpaca, alpaca_data.json, one JSON list of 52,002 rows (CC BY-NC 4.0: research only), and
many data sets in the same shape. Alpaca fine-tuned on all rows under an English preamble; here the instruction alone is
the user's turn, in the model's own chat template. No rankings.
"""

from __future__ import annotations

from rlhf.data.bad_rows import BadRows
from rlhf.data.files import Row, RowReader
from rlhf.data.records import Demonstration
from rlhf.data.self_instruct import join_input
from rlhf.data.source import Records, user_prompt


def read(rows: RowReader, bad_rows: BadRows) -> Records:
    records = Records()
    for row in rows:
        problem = _read_row(row, records)
        if problem is not None:
            bad_rows.add(row.where, problem)
    return records


def _read_row(row: Row, records: Records) -> str | None:
    instruction, output = row.values.get("instruction"), row.values.get("output")
    if not isinstance(instruction, str) or not instruction.strip():
        return "it has no text under `instruction`"
    if not isinstance(output, str):
        return "it has no response: no text under `output`"
    if not output.strip():
        return "its response, `output`, is empty or whitespace"
    prompt = user_prompt(f"alpaca:{row.file}:{row.number}", join_input(instruction, row.values.get("input")))
    records.prompts.append(prompt)
    records.demonstrations.append(Demonstration(prompt, output.strip()))
    return None

"""Rows of the FLAN collection: `inputs`, `targets`, `_task_name` (Longpre et al. 2023, arXiv:2301.13688).

Source: google-research/FLAN writes them (Apache-2.0; the data sets' own terms apply to their rows), with `_task_source`
(Flan2021, T0, NIv2, CoT, Dialog), `_template_type` (zs_opt, fs_noopt, ...: zero- or few-shot, with the options listed
or without) and `_template_idx` beside. Copies on the hub: Open-Orca/FLAN in full, conceptofmind/FLAN_2022 and its parts
(the same columns without the underscore), Muennighoff/flan (`task`). FLAN mixed the tasks examples-proportionally, with
at most 30,000 rows of a task and a cap of 3,000 on its share: data=mixture does that. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.records import Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, of the task that the row names. Raises BadRowError."""
    task = optional_text(row, next((key for key in ("_task_name", "task_name", "task") if key in row), "_task_name"))
    return [Demonstration(user_prompt(text(row, "inputs"), task=task), text(row, "targets"))]

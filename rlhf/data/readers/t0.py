"""T0's prompted tasks, in the files of Self-Instruct and as P3 has them (Sanh et al. 2021, arXiv:2110.08207).

Source: yizhongw/self-instruct, data/finetuning/t0_train_50k/data_per_template (Apache-2.0 for the repository), one file
a template, 200 rows of `prompt` and `completion`, which ends with the text <|endoftext|>: GPT-3's fine-tuning format.
bigscience/P3 on the hub (Apache-2.0), one subset a template: `inputs_pretokenized`, `targets_pretokenized` and their
token ids. The data sets' own terms apply to their rows. T0 was trained on P3's training templates; the Self-Instruct
paper fine-tuned GPT-3 on 50,000 of them to compare with. A row does not name its task. No rankings.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.fields import text, user_prompt, without_end_token
from rlhf.data.records import BadRowError, Demonstration


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, its end token gone. Raises BadRowError."""
    if "inputs_pretokenized" in row:
        return [completed(row, "inputs_pretokenized", "targets_pretokenized")]
    return [completed(row, "prompt", "completion")]


def completed(row: Mapping[str, Any], prompt: str, completion: str) -> Demonstration:
    """A text and how it goes on, from two columns. Raises BadRowError, also for an end token alone."""
    response = without_end_token(text(row, completion))
    if not response:
        raise BadRowError(f"`{completion}` is an end token and nothing else")
    return Demonstration(user_prompt(text(row, prompt)), response)

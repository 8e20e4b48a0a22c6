"""The automatic evaluation samples of InstructGPT (Ouyang et al. 2022, arXiv:2203.02155).

Source: openai/following-instructions-human-feedback, automatic-eval-samples/*.csv. No licence is stated. The columns:
an unnamed index, `model_type`, `prompt_type` (zeroshot or fewshot, in some files), `context`, `ref_text`, `sample`. Of
the files, fr_to_en_samples.csv (2,400 rows) and tldr_samples.csv (1,200) hold 100 prompts each, once for every answer
of twelve models. `context` is the prompt and `ref_text` the data set's own answer, the demonstration; the
models' `sample` is there to compare models by, and is not trained on. All of it is text, "None" and "NA" among it.

The paper has no training data to publish beside these; its prompts came from users of OpenAI's API. No rankings.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from typing import Any

from rlhf.data.files import Row
from rlhf.data.readers.fields import text, user_prompt
from rlhf.data.records import Demonstration


def gather(rows: Iterable[Row]) -> Iterator[Row]:
    """Rows of one prompt and reference, one for each model, as one: the first of them."""
    first: dict[tuple[str, str], Row] = {}
    for row in rows:
        context, reference = row.values.get("context"), row.values.get("ref_text")
        if not isinstance(context, str) or not isinstance(reference, str):
            yield row
            continue
        known = first.get((context, reference))
        first[context, reference] = row if known is None else replace(known, merged=known.merged + row.merged)
    yield from first.values()


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration, the reference. Raises BadRowError."""
    return [Demonstration(user_prompt(text(row, "context")), text(row, "ref_text"))]

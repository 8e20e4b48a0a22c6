"""Self-Instruct's seed tasks (Wang et al. 2022, arXiv:2212.10560).

Source: yizhongw/self-instruct, data/seed_tasks.jsonl, Apache-2.0: 175 tasks written by people, each with an
`instruction` and one or more `instances` of {input, output}; `input` may be empty. The paper grew 52,000 tasks from
them with GPT-3 and fine-tuned on those; the seeds alone are a small, clean set of demonstrations. No rankings.
"""

from __future__ import annotations

from rlhf.data.bad_rows import BadRows
from rlhf.data.files import Row, RowReader
from rlhf.data.records import Demonstration
from rlhf.data.source import Records, user_prompt


def read(rows: RowReader, bad_rows: BadRows) -> Records:
    records = Records()
    for row in rows:
        problem = _read_row(row, records)
        if problem is not None:
            bad_rows.add(row.where, problem)
    return records


def _read_row(row: Row, records: Records) -> str | None:
    """Adds one demonstration an instance; the problem when the row has one, and then nothing is added."""
    instruction, instances = row.values.get("instruction"), row.values.get("instances")
    if not isinstance(instruction, str) or not instruction.strip():
        return "it has no text under `instruction`"
    if not isinstance(instances, list) or not instances:
        return "it has no `instances`, so no response"
    demonstrations = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, dict) or not isinstance(instance.get("output"), str):
            return f"`instances[{index}]` has no text under `output`"
        if not instance["output"].strip():
            return f"`instances[{index}].output` is empty or whitespace"
        text = join_input(instruction, instance.get("input"))
        prompt = user_prompt(f"self_instruct:{row.file}:{row.number}:{index}", text, str(row.values.get("name", "")))
        demonstrations.append(Demonstration(prompt, instance["output"].strip()))
    records.demonstrations += demonstrations
    records.prompts += [demonstration.prompt for demonstration in demonstrations]
    return None


def join_input(instruction: str, text: object) -> str:
    """The instruction, then what it is to be applied to when there is any."""
    body = text.strip() if isinstance(text, str) else ""
    return f"{instruction.strip()}\n\n{body}" if body else instruction.strip()

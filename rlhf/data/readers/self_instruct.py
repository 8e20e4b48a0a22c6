"""Self-Instruct: tasks that people wrote, and what GPT-3 made of them (Wang et al. 2022, arXiv:2212.10560).

Source: yizhongw/self-instruct (Apache-2.0). Its files, all of JSON objects a line:

- data/seed_tasks.jsonl, 175 tasks by people: `id`, `name`, `instruction`, `instances` of {input, output};
- human_eval/user_oriented_instructions.jsonl, 252 tasks: the same with `motivation_app` for `name`. An evaluation set,
  which its authors ask never to train on;
- all_instances_82K.jsonl, 82,439 generated instances: `instruction`, `input` (may be empty), `output`;
- gpt3_finetuning_data.jsonl, the same under the paper's templates: `prompt`, `completion` with <|endoftext|> as text;
- machine_generated_instances.jsonl, before all filters: `instruction`, and `raw_instances`, GPT-3's own text with
  "Example 1", "Output:" and "Class label:" in it. It is taken apart and filtered by the paper's rules, with two
  departures: whether a task is classification is seen from the text, where the paper keeps it in another file, and all
  instances are kept, where the paper draws five. An instance cut short by the token limit is left out.

The paper fine-tuned GPT-3 on the generated instances and the seed tasks together. No rankings.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from rlhf.data.readers.conversations import own_id
from rlhf.data.readers.fields import optional_text, text, user_prompt
from rlhf.data.readers.t0 import completed
from rlhf.data.records import BadRowError, Demonstration

_CLASS_LABEL = "Class label:"
_EXAMPLE = re.compile(r"Example\s?\d*\.?")
_OUTPUT = re.compile(r"Output\s*\d*\s*:")
_INPUT = re.compile(r"Input\s*\d*\s*:")


def read(row: Mapping[str, Any]) -> list[Demonstration]:
    """One demonstration an instance; the task is its name, or the application it is for. Raises BadRowError."""
    if "completion" in row:
        return [completed(row, "prompt", "completion")]
    instruction = text(row, "instruction")
    if "instances" in row:
        return _instances(row, instruction)
    if "raw_instances" in row:
        return _generated(row, instruction)
    if "output" in row:
        return [Demonstration(user_prompt(instruction, optional_text(row, "input")), text(row, "output"))]
    raise BadRowError("it has no response: none of `instances`, `output`, `raw_instances` and `completion`")


def _instances(row: Mapping[str, Any], instruction: str) -> list[Demonstration]:
    instances = row["instances"]
    if not isinstance(instances, list) or not instances:
        raise BadRowError("it has no `instances`, so no response")
    row_id = own_id("self_instruct", row, "id")
    task = optional_text(row, "name") or optional_text(row, "motivation_app")
    demonstrations = []
    for index, instance in enumerate(instances):
        if not isinstance(instance, Mapping):
            raise BadRowError(f"`instances[{index}]` is not {{input, output}}")
        try:
            prompt = user_prompt(instruction, optional_text(instance, "input"), task=task)
            response = text(instance, "output")
        except BadRowError as problem:
            raise BadRowError(f"in `instances[{index}]`, {problem}") from None
        prompt_id = f"{row_id}:{index}" if row_id else ""
        demonstrations.append(Demonstration(replace(prompt, id=prompt_id), response))
    return demonstrations


def _generated(row: Mapping[str, Any], instruction: str) -> list[Demonstration]:
    raw = text(row, "raw_instances")
    pairs = _labelled(raw) if _CLASS_LABEL in raw else _examples(raw)
    if _was_cut(row.get("instance_metadata")):
        pairs = pairs[:-1]
    pairs = [pair for pair in dict.fromkeys(pairs) if _is_whole(*pair)]
    if not pairs:
        raise BadRowError("no whole instance can be found in `raw_instances`")
    inputs = [given for given, _ in pairs if given]
    if len(inputs) > len(set(inputs)):
        raise BadRowError("`raw_instances` answers one input in two ways")
    return [Demonstration(user_prompt(instruction, given), response) for given, response in pairs]


def _labelled(raw: str) -> list[tuple[str, str]]:
    """Inputs and outputs of a classification task, which GPT-3 was asked for in the other order."""
    pairs = []
    for part in raw.split(_CLASS_LABEL)[1:]:
        label, _, given = part.strip().partition("\n")
        pairs.append((given.strip(), label.strip()))
    return pairs


def _examples(raw: str) -> list[tuple[str, str]]:
    """Inputs and outputs of the other tasks: an output alone, or numbered examples."""
    if not _EXAMPLE.search(raw) and not _OUTPUT.search(raw):
        return []
    return [_example(part.strip()) for part in _EXAMPLE.split(raw) if part.strip()]


def _example(part: str) -> tuple[str, str]:
    given, *outputs = _OUTPUT.split(part)
    if not outputs:
        given, outputs = "", [part]
    opening = _INPUT.match(given.strip())
    given = given.strip()[opening.end() :] if opening else given
    return given.strip(), _INPUT.split(outputs[0])[0].strip()  # GPT-3 goes on with the next input at times


def _is_whole(given: str, response: str) -> bool:
    return bool(response) and given != response and not given.endswith(":") and not response.endswith(":")


def _was_cut(metadata: Any) -> bool:
    """Whether generation stopped at the limit of tokens, from the API's answer."""
    for key in ("response", "choices"):
        metadata = metadata.get(key) if isinstance(metadata, Mapping) else None
    first = metadata[0] if isinstance(metadata, list) and metadata else None
    return isinstance(first, Mapping) and first.get("finish_reason") == "length"

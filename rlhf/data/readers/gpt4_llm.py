"""GPT-4-LLM: Alpaca's instructions answered by GPT-4, and answers that GPT-4 scored (arXiv:2304.03277).

Source: Instruction-Tuning-with-GPT-4/GPT-4-LLM, data/ (CC BY-NC 4.0: research only), JSON lists. alpaca_gpt4_data.json,
alpaca_gpt4_data_zh.json and unnatural_instruction_gpt4_data.json have Alpaca's columns, 52,000 rows, 52,000 and 9,000;
comparison_data_v2.json has `user_input` and `responses_and_scores`, a list of {response, score, source} by GPT-4,
GPT-3.5 and OPT-IML, the score GPT-4's from 1 to 10; comparison_data.json has `user_input`, `completion_a` and the worse
`completion_b`. Peng et al. 2023 fine-tuned LLaMA on the former and trained a reward model on the latter.

`user_input` is written under Alpaca's English preamble in most rows; the instruction and the input are taken out of it,
for a template of one's own. OPT-IML's answer is empty at times: it is left out of the ranking, and a row with fewer
than two others is refused. Equal scores tie.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf.data.readers import fields
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking

_PREAMBLE = re.compile(
    r"Below is an instruction that describes a task[^#]*### Instruction:\n"
    r"(?P<instruction>.*?)(?:\n+### Input:\n(?P<input>.*?))?(?:\n+### Response:\s*)?",
    re.DOTALL,
)


def read(row: Mapping[str, Any]) -> list[Demonstration] | list[Ranking]:
    """One demonstration, or one ranking. Raises BadRowError."""
    if "user_input" not in row:
        prompt = fields.user_prompt(fields.text(row, "instruction"), fields.optional_text(row, "input"))
        return [Demonstration(prompt, fields.text(row, "output"))]
    prompt = _prompt(fields.text(row, "user_input"))
    if "responses_and_scores" in row:
        return [_ranking(prompt, row["responses_and_scores"])]
    completions = [fields.text(row, "completion_a"), fields.text(row, "completion_b")]
    return [fields.ranking(prompt, completions, (0, 1))]


def _prompt(user_input: str) -> Prompt:
    written = _PREAMBLE.fullmatch(user_input)
    if written is None or not written["instruction"].strip():
        return fields.user_prompt(user_input)
    return fields.user_prompt(written["instruction"].strip(), (written["input"] or "").strip())


def _ranking(prompt: Prompt, responses: Any) -> Ranking:
    if not isinstance(responses, list):
        raise BadRowError("`responses_and_scores` is not a list")
    completions, scores = [], []
    for index, response in enumerate(responses):
        where = f"responses_and_scores[{index}]"
        if not isinstance(response, Mapping) or not isinstance(response.get("response"), str):
            raise BadRowError(f"`{where}` has no text under `response`")
        if response["response"].strip():
            completions.append(response["response"])
            scores.append(fields.number(response.get("score"), f"{where}.score"))
    return fields.ranking(prompt, completions, fields.ranks_of(scores), margins=tuple(scores))

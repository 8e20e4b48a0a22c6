"""Anthropic's helpful and harmless dialogues (Bai et al. 2022, arXiv:2204.05862).

Source: anthropics/hh-rlhf, MIT. About 161,000 training and 8,600 test pairs in .jsonl.gz files (harmless-base/test:
2,312). A row has `chosen` and `rejected`: two transcripts, turns opened by "\\n\\nHuman:" and "\\n\\nAssistant:", that
share everything up to the last Assistant turn. The paper trained a preference model on the pairs and RL on the
prompts; here the chosen reply also serves as a demonstration, which the paper did not do.
Harmful text is there by design: red-team conversations.
"""

from __future__ import annotations

import re

from rlhf.data.bad_rows import BadRows
from rlhf.data.files import Row, RowReader
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role
from rlhf.data.source import Records

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": Role.user, "Assistant": Role.assistant}


def read(rows: RowReader, bad_rows: BadRows) -> Records:
    records = Records()
    for row in rows:
        problem = _read_row(row, records)
        if problem is not None:
            bad_rows.add(row.where, problem)
    return records


def _read_row(row: Row, records: Records) -> str | None:
    """Adds the row's records; the problem when it has one."""
    turns = {}
    for key in ("chosen", "rejected"):
        text = row.values.get(key)
        if not isinstance(text, str):
            return f"it has no text under `{key}`"
        turns[key] = _turns(text)
        if not turns[key] or turns[key][-1].role != Role.assistant or len(turns[key]) < 2:
            return f"`{key}` does not end with an Assistant turn after a Human one"
        if not turns[key][-1].content:
            return f"`{key}` ends with an empty response"
    chosen, rejected = turns["chosen"], turns["rejected"]
    if chosen[:-1] != rejected[:-1]:
        return "`chosen` and `rejected` differ before the last Assistant turn, so they answer different prompts"
    if chosen == rejected:
        return "`chosen` and `rejected` are the same"
    prompt = Prompt(f"hh_rlhf:{row.file}:{row.number}", tuple(chosen[:-1]))
    replies = (chosen[-1].content, rejected[-1].content)
    records.prompts.append(prompt)
    records.demonstrations.append(Demonstration(prompt, replies[0]))
    records.rankings.append(Ranking(prompt, replies, ranks=(0, 1)))
    return None


def _turns(transcript: str) -> list[Message]:
    _, *parts = _TURN.split(transcript)
    return [Message(_ROLES[name], text.strip()) for name, text in zip(parts[::2], parts[1::2], strict=True)]

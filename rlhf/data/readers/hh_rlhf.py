"""Anthropic's helpful and harmless dialogues (Bai et al. 2022, arXiv:2204.05862) and red-team attempts.

Source: anthropics/hh-rlhf, Anthropic/hh-rlhf on the hub, MIT; a folder each, .jsonl.gz files.
- helpful-base, helpful-online, helpful-rejection-sampled, harmless-base: about 161,000 training and 8,600 test pairs
  (harmless-base/test: 2,312). A row has `chosen` and `rejected`: two transcripts, turns opened by "\\n\\nHuman:" and
  "\\n\\nAssistant:", that share everything up to the last Assistant turn. The paper trained a preference model on the
  pairs and RL on the prompts; here the chosen reply also serves as a demonstration, which the paper did not do and
  the data set's card advises against.
- red-team-attempts: 38,961 rows (Ganguli et al. 2022, arXiv:2209.07858) of `transcript`, `rating` (the attacker's own,
  of how well it went), `min_harmlessness_score_transcript`, `task_description`, `red_team_member_id` and others. They
  compare nothing, and the replies in them are often harmful, so they give prompts alone. The prompt is the attack's
  first turn: later turns answer what another model said, and would put its words into the policy's mouth.
Harmful text is there by design: red-team conversations.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.comparisons import best
from rlhf.data.readers.fields import ranking, text
from rlhf.data.records import BadRowError, Demonstration, Message, Prompt, Ranking, Role

_TURN = re.compile(r"(?:^|\n\n)(Human|Assistant):")
_ROLES = {"Human": Role.user, "Assistant": Role.assistant}


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking | Prompt]:
    if "transcript" in row:
        return [_attack(row)]
    chosen, rejected = _dialogue(row, "chosen"), _dialogue(row, "rejected")
    if chosen[:-1] != rejected[:-1]:
        raise BadRowError(
            "`chosen` and `rejected` differ before the last Assistant turn, so they answer different prompts"
        )
    if chosen == rejected:
        raise BadRowError("`chosen` and `rejected` are the same")
    if chosen[-2].role != Role.user:
        raise BadRowError("`chosen` does not end with an Assistant turn after a Human one")
    if not all(turn.content for turn in chosen[:-1]):
        raise BadRowError("`chosen` has an empty turn before its last one")
    ranked = ranking(Prompt("", tuple(chosen[:-1])), (chosen[-1].content, rejected[-1].content), (0, 1))
    return [*best(ranked), ranked]


def _dialogue(row: Mapping[str, Any], key: str) -> list[Message]:
    turns = _turns(text(row, key))
    if len(turns) < 2 or turns[-1].role != Role.assistant:
        raise BadRowError(f"`{key}` does not end with an Assistant turn after a Human one")
    if not turns[-1].content:
        raise BadRowError(f"`{key}` ends with an empty response")
    return turns


def _attack(row: Mapping[str, Any]) -> Prompt:
    turns = _turns(text(row, "transcript"))
    if not turns or turns[0].role != Role.user or not turns[0].content:
        raise BadRowError("`transcript` does not begin with a Human turn")
    attacker = row.get("red_team_member_id")
    return Prompt("", (turns[0],), user=str(attacker) if isinstance(attacker, int | str) else "")


def _turns(transcript: str) -> list[Message]:
    _, *parts = _TURN.split(transcript)
    return [Message(_ROLES[name], content.strip()) for name, content in zip(parts[::2], parts[1::2], strict=True)]

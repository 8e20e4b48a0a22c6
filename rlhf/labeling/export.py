"""Judgements as files: rankings that `stage=reward` trains on, verdicts that `stage=compare` reads."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Any

from rlhf.data.records import Prompt
from rlhf.labeling.items import Item, Response
from rlhf.labeling.judgements import Judgement
from rlhf.runtime.files import write_text_atomic
from rlhf.runtime.jsonl import json_line


@dataclass(frozen=True)
class Exported:
    rankings_path: Path
    rankings: int
    verdicts_path: Path
    verdicts: int


def export(judgements: Sequence[Judgement], items: Mapping[str, Item], folder: Path, *, baseline: str) -> Exported:
    """Writes rankings.jsonl and verdicts.jsonl, each whole, of the judgements that skipped nothing."""
    judged = [(judgement, items[judgement.item]) for judgement in judgements if not judgement.skipped]
    rankings = [row for judgement, item in judged for row in ranking_rows(judgement, item)]
    verdicts = [row for judgement, item in judged for row in verdict_rows(judgement, item, baseline)]
    paths = folder / "rankings.jsonl", folder / "verdicts.jsonl"
    for path, rows in zip(paths, (rankings, verdicts), strict=True):
        write_text_atomic(path, "".join(json_line(row) for row in rows))
    return Exported(paths[0], len(rankings), paths[1], len(verdicts))


def ranking_rows(judgement: Judgement, item: Item) -> Iterator[dict[str, Any]]:
    """The ranking as `data=FILE` reads it, and beside it what else was said; without empty responses, which it refuses.

    response is the (first) best, since the reward stage sets its bias by demonstrations and other rankings' best
    completions are theirs too. margins, where every response was rated, are the qualities: what reward.margin=true
    takes for worth.
    """
    responses = [response for response in item.responses if response.text]
    if len(responses) < 2:
        return
    quality = [judgement.quality.get(response.id) for response in responses]
    yield {
        "id": item.prompt.id,
        **({"task": item.prompt.task} if item.prompt.task else {}),
        "messages": [{"role": message.role.value, "content": message.content} for message in item.prompt.messages],
        "completions": [response.text for response in responses],
        "ranks": [judgement.ranks[response.id] for response in responses],
        "response": min(responses, key=lambda response: judgement.ranks[response.id]).text,
        **({"margins": quality} if None not in quality else {}),
        "quality": quality,
        "attributes": [judgement.attributes.get(response.id, []) for response in responses],
        "generators": [list(response.names) for response in responses],
        "labeler": judgement.labeler,
        "judged_at": judgement.judged_at,
        "seconds": judgement.seconds,
    }


def verdict_rows(judgement: Judgement, item: Item, baseline: str) -> Iterator[dict[str, Any]]:
    """Every two candidates of the item once, as AlpacaEval's annotations: 1 and 2 the better output, 1.5 for a draw.

    `baseline` is output_1 wherever it is one of the two, so that a win is over it; else the alphabet decides, so that
    two candidates come in the same order in every row.
    Candidates that gave the same response draw. Items whose file names no candidates give nothing.
    """
    given: dict[str, Response] = {name: response for response in item.responses for name in response.names}
    names = sorted(given, key=lambda name: (name != baseline, name))
    for one, other in combinations(names, 2):
        ours, theirs = judgement.ranks[given[other].id], judgement.ranks[given[one].id]
        yield {
            "instruction": _written_out(item.prompt),
            "output_1": given[one].text,
            "generator_1": one,
            "output_2": given[other].text,
            "generator_2": other,
            **({"dataset": item.prompt.task} if item.prompt.task else {}),
            "annotator": judgement.labeler,
            "preference": 1.5 if ours == theirs else 2 if ours < theirs else 1,
        }


def _written_out(prompt: Prompt) -> str:
    if len(prompt.messages) == 1:
        return prompt.messages[0].content
    return "\n\n".join(f"{message.role.value}: {message.content}" for message in prompt.messages)

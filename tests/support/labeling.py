"""Items and judgements for the tests of labeling."""

from __future__ import annotations

import json
import uuid
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rlhf.data.records import Message, Prompt, Role
from rlhf.labeling.items import Item, Response
from rlhf.labeling.judgements import Judgement


def item(number: int = 0, texts: Mapping[str, str] | None = None, task: str = "") -> Item:
    """texts: by candidate."""
    texts = texts or {"base": f"Bad {number}.", "sft": f"Fair {number}.", "ppo": f"Good {number}."}
    prompt = Prompt(f"test:{number}", (Message(Role.user, f"Question {number}?"),), task)
    return Item(prompt, tuple(Response(text, (name,)) for name, text in texts.items()))


def judgement(of: Item, ranks: Sequence[int] = (), labeler: str = "Ann", **said: Any) -> Judgement:
    """ranks: of the item's responses in its order; (): skipped. quality, attributes: alike, None where not given."""
    ids = [response.id for response in of.responses]
    by_response = {
        key: {i: value for i, value in zip(ids, values, strict=True) if value is not None}
        for key, values in {"ranks": ranks or [None] * len(ids), **said}.items()
    }
    return Judgement(uuid.uuid4().hex, of.key, labeler, 1.0, **by_response)


def sent(of: Item, ranks: Sequence[int], labeler: str = "Ann", **changes: Any) -> dict[str, Any]:
    """What a page sends."""
    places = {response.id: rank for response, rank in zip(of.responses, ranks, strict=True)}
    said = {"ranks": places, "quality": {}, "attributes": {}, "skipped": False}
    return {"id": uuid.uuid4().hex, "item": of.key, "labeler": labeler, "seconds": 2.5, **said, **changes}


def compared(prompts: int, **texts: str) -> list[dict[str, Any]]:
    """Rows of a comparison's responses.jsonl."""
    given = texts or {"base": "Bad", "sft": "Fair", "ppo": "Good"}
    return [
        {
            "id": f"test:{number}",
            "task": "asking",
            "messages": [{"role": "user", "content": f"Question {number}?"}],
            "candidates": {name: {"response": f"{text} {number}.", "tokens": 3} for name, text in given.items()},
        }
        for number in range(prompts)
    ]


def write(path: Path, rows: Sequence[Any]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path

"""What a grown set is like: the numbers of the paper's table 1 and figures 2 to 5, from the stage's files."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from statistics import fmean, quantiles
from typing import Any

from rlhf.self_instruct.filters import Reason
from rlhf.self_instruct.records import SeedTask
from rlhf.self_instruct.store import DROPPED, INSTANCES, INSTRUCTIONS, Row, Store

TOP_VERBS = 20  # as the paper's figure 2, with 4 objects each
TOP_OBJECTS = 4

# What an instruction may begin with that is no order and no question.
_NO_VERB = frozenset(
    word
    for line in ("a an the this that these those i you he she it we they my your our", "there if in on for")
    for word in line.split()
)
_BEFORE_NOUN = frozenset(
    word
    for line in (
        "a an the this that these those my your his her its our their me us him them you some any all both each every",
        "one two three four five six seven eight nine ten few several many more other another no following given of",
        "is are was were be do does did can could should will would there up with on out",
    )
    for word in line.split()
)
_AFTER_NOUN = frozenset(
    word
    for line in (
        "about above after against and around as at based because before below between but by containing during for",
        "from given how i if in into is it like of off on onto or over so such than that then through to under until",
        "using what when where whether which while who why with within without you are was were can could should",
        "would be has have the a an",
    )
    for word in line.split()
)


def summarise(seeds: Sequence[SeedTask], store: Store) -> dict[str, Any]:
    """The numbers of statistics.json; means and quantiles are None where there is nothing to take them of."""
    instructions, instances = store.rows(INSTRUCTIONS), store.rows(INSTANCES)
    dropped = Counter(row["reason"] for row in store.rows(DROPPED))
    return {
        "seeds": len(seeds),
        "rounds": len(store.rounds),
        "proposed": sum(entry["proposed"] for entry in store.rounds),
        "instructions": len(instructions),
        "classification_instructions": sum(row["is_classification"] for row in instructions),
        "instances": len(instances),
        "instances_without_input": sum(not row["input"] for row in instances),
        "mean_words": {name: _mean(words) for name, words in words_of(instructions, instances).items()},
        "rouge_l_to_nearest_seed": _spread([row["seed_rouge_l"] for row in instructions]),
        "rouge_l_to_nearest": _spread([row["rouge_l"] for row in instructions]),
        "verbs": verbs([row["instruction"] for row in instructions]),
        "dropped": dict(dropped.most_common()),
    }


def words_of(instructions: Sequence[Row], instances: Sequence[Row]) -> dict[str, list[int]]:
    """Words of every instruction, of every input that is not empty, and of every output."""
    return {
        "instruction": [len(row["instruction"].split()) for row in instructions],
        "input": [len(row["input"].split()) for row in instances if row["input"]],
        "output": [len(row["output"].split()) for row in instances],
    }


def verbs(instructions: Sequence[str]) -> list[dict[str, Any]]:
    """The most frequent first words, each with its most frequent objects and how often they come."""
    objects: dict[str, Counter[str]] = {}
    for instruction in instructions:
        verb, thing = verb_and_object(instruction)
        if verb:
            objects.setdefault(verb, Counter())[thing] += 1
    counts = Counter({verb: things.total() for verb, things in objects.items()})
    return [
        {
            "verb": verb,
            "count": count,
            "objects": [{"object": thing, "count": times} for thing, times in objects[verb].most_common() if thing][
                :TOP_OBJECTS
            ],
        }
        for verb, count in counts.most_common(TOP_VERBS)
    ]


def verb_and_object(instruction: str) -> tuple[str, str]:
    """The first word and the last word of the noun phrase that seems to follow it; "" for what is not found.

    No verb is found where the first word is an article, a pronoun or the like.

    The paper takes both from a parse; this goes by lists of the short words that come before and after nouns, which is
    right for most orders ("Write a short story about...") and rough for questions.

    >>> verb_and_object("Write a short story about a dog.")
    ('write', 'story')
    """
    clause = re.split(r"[,.:;!?()\n\"]", instruction.strip().lower(), maxsplit=1)[0]
    words = re.findall(r"[^\W\d_][\w'’-]*", clause)
    verb, *rest = words[words[:1] == ["please"] :] or [""]
    if verb in _NO_VERB:
        return "", ""
    while rest and rest[0] in _BEFORE_NOUN:
        rest.pop(0)
    phrase: list[str] = []
    for word in rest:
        if word in _AFTER_NOUN:
            break
        phrase.append(word)
    return verb, phrase[-1] if phrase else ""


def text_table(summary: Mapping[str, Any]) -> str:
    """What was kept and what was dropped, for the terminal."""
    kept = f"{summary['instructions']} instructions with {summary['instances']} instances"
    asked = f"of {summary['proposed']} proposed in {summary['rounds']} rounds, from {summary['seeds']} seeds"
    dropped = summary["dropped"]
    if not dropped:
        return f"Kept {kept}, {asked}. Nothing was dropped."
    width = max(len(str(count)) for count in dropped.values())
    rows = "\n".join(f"  {count:>{width}}  {Reason[name].value}" for name, count in dropped.items())
    return f"Kept {kept}, {asked}.\nDropped:\n{rows}"


def _mean(values: Sequence[float]) -> float | None:
    return fmean(values) if values else None


def _spread(values: Sequence[float]) -> dict[str, float | None]:
    """Mean, and the values that half and nine tenths of them do not exceed."""
    if not values:
        return {"mean": None, "median": None, "p90": None}
    tenths = quantiles(values, n=10, method="inclusive") if len(values) > 1 else list(values) * 9
    return {"mean": fmean(values), "median": tenths[4], "p90": tenths[8]}

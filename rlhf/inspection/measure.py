"""What is in a data set: rows, records, lengths in tokens, duplicates, and a few examples as a model learns them."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from rlhf.config import Config, LongPrompts, LossOn
from rlhf.data.quality.report import duplicates_of, leakage
from rlhf.data.records import (
    DataSource,
    Demonstration,
    NeedsSamplerError,
    Prompt,
    Ranking,
    Split,
    no_sampler,
    prompt_of,
)
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

EXAMPLES = 3
SAMPLED = 20000  # records that are tokenized and compared; of more, every so-manieth
LEAKED_WORDS = 13


@dataclass
class Span:
    """A run of an example's tokens, as text."""

    text: str
    learned: bool  # whether the loss counts them


@dataclass
class Example:
    title: str
    spans: list[Span]


@dataclass
class Lengths:
    """Tokens of every record looked at."""

    name: str
    tokens: list[int]

    def summary(self) -> dict[str, float]:
        numbers = np.array(self.tokens)
        return {
            "mean": round(float(numbers.mean()), 1),
            "median": float(np.median(numbers)),
            "95 %": float(np.percentile(numbers, 95)),
            "max": float(numbers.max()),
        }


@dataclass
class Refused:
    problem: str  # the first one's; others that differ in numbers and names are counted with it
    rows: int
    first: str


@dataclass
class Inspection:
    source: str
    path: str | None
    template: str
    records: dict[str, dict[str, int]] = field(default_factory=dict)  # kind -> split -> how many
    read: dict[str, Any] = field(default_factory=dict)  # the source's fingerprint
    looked_at: int = 0  # records tokenized and compared
    duplicates: tuple[int, int] = (0, 0)  # exact, near
    leaked: int = 0  # training records that share words with a held-out prompt
    lengths: list[Lengths] = field(default_factory=list)
    limits: list[str] = field(default_factory=list)  # what the limits do, in words
    packing: dict[str, float] = field(default_factory=dict)  # share of a batch's tokens that are text
    refused: list[Refused] = field(default_factory=list)
    examples: list[Example] = field(default_factory=list)

    def values(self) -> dict[str, Any]:
        """As JSON, lengths summed up."""
        lengths = {each.name: each.summary() for each in self.lengths}
        return {**asdict(self), "lengths": lengths}


def inspect(config: Config, source: DataSource, template: ChatTemplate, bad_rows_path: Path) -> Inspection:
    """Looks through both splits. `bad_rows_path` lists what reading refused."""
    found = Inspection(config.data.source.value, config.data.path, template.template.value)
    found.read = source.fingerprint()
    by_kind = _records(source)
    found.records = {kind: {s.value: len(r) for s, r in splits.items()} for kind, splits in by_kind.items()}
    found.refused = refused_rows(bad_rows_path)
    kind = next((k for k in ("demonstrations", "rankings", "prompts") if k in by_kind), None)
    if kind is not None:
        train, evaluation = (_spread(by_kind[kind].get(split, ()), SAMPLED) for split in Split)
        together = [*train, *evaluation]
        found.looked_at = len(together)
        repeated = duplicates_of(together)
        found.duplicates = (repeated.exact, repeated.near)
        found.leaked = leakage(together, [False] * len(train) + [True] * len(evaluation), LEAKED_WORDS)
        _measure(found, config, template, together)
        found.examples = [_example(record, config, template) for record in _spread(train or evaluation, EXAMPLES)]
    elif "texts" in by_kind:
        texts = _spread(by_kind["texts"].get(Split.train, ()), SAMPLED)
        found.looked_at = len(texts)
        found.lengths = [Lengths("text", [len(template.response_ids(text)) for text in texts])]
        found.examples = [Example("a document", [Span(text, True)]) for text in _spread(texts, EXAMPLES)]
    return found


def _records(source: DataSource) -> dict[str, dict[Split, Sequence[Any]]]:
    """Kind -> split -> records, of the kinds that the source has."""
    asks: dict[str, Callable[[Split], Sequence[Any]]] = {
        "demonstrations": source.demonstrations,
        "rankings": lambda split: source.rankings(split, no_sampler),
        "prompts": source.prompts,
        "texts": lambda split: source.texts(split) if source.has_texts else (),
    }
    found: dict[str, dict[Split, Sequence[Any]]] = {}
    for kind, ask in asks.items():
        for split in Split:
            try:
                records = ask(split)
            except (UserError, NeedsSamplerError):
                continue
            if len(records):
                found.setdefault(kind, {})[split] = records
    return found


def _spread(records: Sequence[Any], most: int) -> list[Any]:
    """`most` of them, evenly from the first to the last; all when there are no more."""
    if len(records) <= most:
        return list(records)
    return [records[int(index)] for index in np.linspace(0, len(records) - 1, most)]


def _measure(found: Inspection, config: Config, template: ChatTemplate, records: Sequence[Any]) -> None:
    prompts = [len(template.prompt_ids(prompt_of(record))) for record in records]
    responses = [[len(template.response_ids(text)) for text in _responses(record)] for record in records]
    found.lengths = [Lengths("prompt", prompts)]
    if any(responses):
        flat = [tokens for each in responses for tokens in each]
        found.lengths.append(Lengths("response", flat))
        whole = [p + r for p, each in zip(prompts, responses, strict=True) for r in each]
        found.lengths.append(Lengths("together", whole))
        found.packing = packing(whole, config)
        most = config.data.max_response_tokens
        found.limits.append(_limit(flat, most, "responses", "data.max_response_tokens", "cut without an end token"))
    dealt = "bad rows" if config.data.long_prompts == LongPrompts.refuse else "cut to their last turns, where these fit"
    most = config.data.max_prompt_tokens
    found.limits.insert(0, _limit(prompts, most, "prompts", "data.max_prompt_tokens", dealt))


def _limit(tokens: Sequence[int], most: int, what: str, key: str, dealt: str) -> str:
    over = sum(count > most for count in tokens)
    share = f"{100 * over / len(tokens):.1f} %" if tokens else "0 %"
    return f"{over:,} {what} ({share}) are over {key}={most}" + (f": {dealt}" if over else "")


def packing(lengths: Sequence[int], config: Config) -> dict[str, float]:
    """The share of tokens that are text, not padding: packed by TRL as sft.packing=true does, and in batches."""
    from datasets import Dataset
    from trl.data_utils import pack_dataset

    from rlhf.training.rows import BucketSampler

    most = config.data.max_prompt_tokens + config.data.max_response_tokens
    kept = [min(length, most) for length in lengths]
    rows = Dataset.from_dict({"input_ids": [[0] * length for length in kept]})
    packed = len(pack_dataset(rows, most, "bfd"))
    size = config.sft.micro_batch_size_per_device
    order = [kept[index] for index in BucketSampler(kept, size, config.seed, lambda: 0.0)]
    batches = [order[start : start + size] for start in range(0, len(order), size)]
    padded = sum(max(batch) * len(batch) for batch in batches)
    return {
        f"packed into {most:,} tokens": round(sum(kept) / (packed * most), 4),
        f"in batches of {size} of like length": round(sum(kept) / padded, 4),
    }


def _responses(record: Demonstration | Ranking | Prompt) -> Sequence[str]:
    if isinstance(record, Demonstration):
        return (record.response,)
    return record.completions if isinstance(record, Ranking) else ()


def _example(record: Demonstration | Ranking | Prompt, config: Config, template: ChatTemplate) -> Example:
    """The record as a model reads it, with what the loss counts marked."""
    prompt = prompt_of(record)
    ids = template.prompt_ids(prompt)
    learned = [False] * len(ids)
    if config.sft.loss_on == LossOn.all:
        learned = template.prompt_mask(prompt)
    task = f", {prompt.task}" if prompt.task else ""
    if isinstance(record, Ranking):
        spans = spans_of(template.tokenizer, ids, learned)
        for place in sorted(range(len(record.completions)), key=lambda i: record.ranks[i]):
            spans += [
                Span(f"\n[rank {record.ranks[place]}] ", False),
                *spans_of(template.tokenizer, *_learned(template, record.completions[place])),
            ]
        return Example(f"{prompt.id}{task}, {len(record.completions)} completions, best first", spans)
    for response in _responses(record):
        more, mask = _learned(template, response)
        ids, learned = ids + more, learned + mask
    return Example(f"{prompt.id}{task}", spans_of(template.tokenizer, ids, learned))


def _learned(template: ChatTemplate, response: str) -> tuple[list[int], list[bool]]:
    ids = template.response_ids(response)
    return ids, [True] * len(ids)


def spans_of(tokenizer: PreTrainedTokenizerBase, ids: Sequence[int], learned: Sequence[bool]) -> list[Span]:
    """The tokens as text, cut where the mask changes; special tokens are spelled out."""
    spans = []
    start = 0
    for end in range(1, len(ids) + 1):
        if end == len(ids) or learned[end] != learned[start]:
            text = tokenizer.decode(list(ids[start:end]), skip_special_tokens=False, clean_up_tokenization_spaces=False)
            spans.append(Span(str(text), learned[start]))
            start = end
    return spans


def refused_rows(path: Path) -> list[Refused]:
    """What bad_rows.jsonl lists, alike problems together, most rows first."""
    if not path.exists():
        return []
    found: dict[str, Refused] = {}
    for line in path.read_text(encoding="utf-8").split("\n"):
        if line:
            entry = json.loads(line)
            kind = re.sub(r"'[^']*'|\d+", "", entry["problem"])
            known = found.setdefault(kind, Refused(entry["problem"], 0, entry["where"]))
            known.rows += entry.get("rows", 1)
    return sorted(found.values(), key=lambda refused: -refused.rows)

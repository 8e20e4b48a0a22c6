"""Records to token ids: the lengths a model can take are checked here, where its tokenizer is known.

What comes from files is tokenized by several processes, a million records in memory-mapped files, and found again when
records, tokenizer, layout and limits are the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import logging
import os
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar, overload

import numpy as np
import pyarrow.compute as pc

from rlhf.config import DataConfig, LongPrompts, LossOn
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Demonstration, Prompt, Ranking
from rlhf.data.store import cache_folder, made_once
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError

if TYPE_CHECKING:
    from datasets import Dataset

log = logging.getLogger("rlhf")

IGNORED = -100  # the label of a token that has no loss
PARALLEL_FROM = 5000  # records; fewer are tokenized sooner than processes start
R = TypeVar("R")
E = TypeVar("E")


@dataclass(frozen=True)
class EncodedPrompt:
    prompt: Prompt
    ids: list[int]


@dataclass(frozen=True)
class EncodedDemonstration:
    prompt: Prompt
    prompt_ids: list[int]
    response_ids: list[int]  # with the end token, unless the response was cut


@dataclass(frozen=True)
class EncodedRanking:
    ranking: Ranking
    sequences: list[list[int]]  # prompt + completion + end token, one a completion


class EncodedRows(Sequence[E], Generic[E]):
    """Encoded records, made of a table's rows when they are asked for.

    table: a row a record, in their order; `input_ids` and, of demonstrations, `labels` among its columns.
    """

    def __init__(self, table: Dataset, records: Sequence[Any], build: Callable[[Any, Mapping[str, Any]], E]) -> None:
        self.table = table
        self._records = records
        self._build = build

    def __len__(self) -> int:
        return len(self.table)

    @overload
    def __getitem__(self, index: int) -> E: ...
    @overload
    def __getitem__(self, index: slice) -> list[E]: ...
    def __getitem__(self, index: int | slice) -> E | list[E]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        row = self.table[index]
        return self._build(self._records[row["record"]], row)

    def __iter__(self) -> Iterator[E]:
        return (self[index] for index in range(len(self)))

    def select(self, indices: Sequence[int]) -> EncodedRows[E]:
        return EncodedRows(self.table.select(indices), self._records, self._build)

    @property
    def lengths(self) -> list[int]:
        """Tokens of each, the longest sequence of a ranking."""
        return list(self.table["length"])


def context_of(model_config: object) -> int | None:
    """Tokens that a model can take at once; None when its config does not say."""
    context = getattr(model_config, "max_position_embeddings", None)
    return context if isinstance(context, int) else None


class Encoder:
    """One tokenizer's view of the data. Prompts over the limits are bad rows, or lose their oldest turns
    (data.long_prompts); responses are cut to what fits.

    context: the model's, in tokens; None knows no limit but the config's.
    truncated_prompts, cut_responses: how many there were. alike_rankings: those left out because, cut, their
    completions of different ranks were the same tokens, of which nothing can be learned.
    """

    def __init__(
        self,
        template: ChatTemplate,
        config: DataConfig,
        bad_rows: BadRows,
        *,
        context: int | None = None,
        show_progress: bool = False,
    ) -> None:
        self.template = template
        self.config = config
        self.bad_rows = bad_rows
        self.context = context
        self.truncated_prompts = 0
        self.cut_responses = 0
        self.alike_rankings = 0
        self._show_progress = show_progress

    def prompts(self, prompts: Sequence[Prompt], *, room: int = 1) -> EncodedRows[EncodedPrompt]:
        """Prompts that leave `room` tokens of the context for a response."""
        coder = _PromptCoder(self.template, self.config, self.context, room)
        return self._encoded(coder, prompts, lambda prompt, row: EncodedPrompt(coder.as_seen(prompt), row["input_ids"]))

    def demonstrations(
        self, demonstrations: Sequence[Demonstration], loss_on: LossOn = LossOn.last
    ) -> EncodedRows[EncodedDemonstration]:
        """loss_on: which assistant turns `labels` hold; UserError when the layout does not tell where they are."""
        coder = _DemonstrationCoder(self.template, self.config, self.context, loss_on=loss_on)

        def build(demonstration: Demonstration, row: Mapping[str, Any]) -> EncodedDemonstration:
            ids, start = row["input_ids"], row["prompt_tokens"]
            return EncodedDemonstration(coder.as_seen(demonstration.prompt), ids[:start], ids[start:])

        return self._encoded(coder, demonstrations, build)

    def rankings(self, rankings: Sequence[Ranking]) -> EncodedRows[EncodedRanking]:
        coder = _RankingCoder(self.template, self.config, self.context)
        return self._encoded(coder, rankings, lambda ranking, row: EncodedRanking(ranking, row["input_ids"]))

    def _encoded(
        self, coder: _Coder[R], records: Sequence[R], build: Callable[[R, Mapping[str, Any]], E]
    ) -> EncodedRows[E]:
        known_as: str | None = getattr(records, "fingerprint", None)  # of records on disk
        if known_as is not None and len(records) >= PARALLEL_FROM:
            table = _cached_table(coder, records, known_as, self.config, self._show_progress)
        else:
            from datasets import Dataset, Features

            table = Dataset.from_dict(coder.columns(list(records), 0), Features(coder.features()))
        columns = table.data  # as Arrow has it: Python would take seconds for a million rows
        problems = columns.column("problem")
        good = pc.equal(problems, "").to_numpy(zero_copy_only=False)
        self.truncated_prompts += int(pc.sum(columns.column("truncated")).as_py() or 0)
        self.cut_responses += int(pc.sum(columns.column("cut")).as_py() or 0)
        if not good.all():
            for index in np.flatnonzero(~good):
                self.bad_rows.add(*json.loads(problems[int(index)].as_py()))
            table = table.select(np.flatnonzero(good))
        alike = np.asarray(table["alike"], dtype=bool)
        if alike.any():
            self.alike_rankings += int(alike.sum())
            log.warning(
                "%d of %d rankings are left out: their completions are the same in data.max_response_tokens=%d",
                alike.sum(),
                len(table),
                self.config.max_response_tokens,
            )
            table = table.select(np.flatnonzero(~alike))
        if not len(table):
            if alike.any():
                raise UserError(
                    "Every ranking's completions are the same within data.max_response_tokens="
                    f"{self.config.max_response_tokens}, so there is nothing to learn; raise it."
                )
            raise UserError(
                f"None of {len(records)} prompts is short enough; raise data.max_prompt_tokens above "
                f"{self.config.max_prompt_tokens}, or use a model with a longer context."
            )
        return EncodedRows(table, records, build)


class _Coder(Generic[R]):
    """Records of one kind to a table's columns: pure, and sent to other processes."""

    def __init__(self, template: ChatTemplate, config: DataConfig, context: int | None, room: int = 1) -> None:
        self.template = template
        self.context = context
        self.long_prompts = config.long_prompts
        self.max_response_tokens = config.max_response_tokens
        self.limit, self.remedy = config.max_prompt_tokens, "raise data.max_prompt_tokens"
        if context is not None and context - room < self.limit:
            self.limit = context - room
            self.remedy = f"use a model with a longer context than {context} tokens"

    def features(self) -> dict[str, Any]:
        from datasets import List, Value

        return {
            "record": Value("int64"),
            "input_ids": List(Value("int32")),
            "prompt_tokens": Value("int32"),
            "length": Value("int32"),
            "truncated": Value("bool"),
            "cut": Value("int32"),
            "alike": Value("bool"),
            "problem": Value("string"),
        }

    def columns(self, records: Sequence[R], first: int) -> dict[str, list[Any]]:
        """first: the place of the first of these records among all."""
        columns: dict[str, list[Any]] = {name: [] for name in self.features()}
        for index, record in enumerate(records, start=first):
            row: dict[str, Any] = {"record": index, "prompt_tokens": 0, "length": 0, "truncated": False, "cut": 0}
            row |= {"alike": False, "problem": "", **self.encode(record)}
            for name, column in columns.items():
                column.append(row.get(name, []))
        return columns

    def encode(self, record: R) -> dict[str, Any]:
        raise NotImplementedError

    def as_seen(self, prompt: Prompt) -> Prompt:
        """The prompt as far as it is used."""
        if self.long_prompts == LongPrompts.refuse:
            return prompt
        fitting = self.template.fit(prompt, self.limit)
        assert fitting is not None, "such prompts were refused"
        return fitting

    def prompt(self, prompt: Prompt) -> tuple[Prompt, dict[str, Any]]:
        """The prompt as far as it is used, and its row: its ids, or what is wrong with it."""
        where = f"the prompt {prompt.id}"
        try:
            ids = self.template.prompt_ids(prompt)
        except UserError as error:
            return prompt, {"problem": json.dumps([where, str(error).rstrip(".")])}
        if len(ids) <= self.limit:
            return prompt, {"input_ids": ids, "prompt_tokens": len(ids), "length": len(ids)}
        fitting = self.template.fit(prompt, self.limit) if self.long_prompts == LongPrompts.truncate else None
        if fitting is None:
            problem = f"it has {len(ids)} tokens, and {self.limit} are allowed"
            if self.long_prompts == LongPrompts.truncate:
                problem += ", and its last turn alone is too long"
            remedy = self.remedy
            if self.long_prompts == LongPrompts.refuse and len(prompt.messages) > 1:
                remedy += ", or drop the oldest turns with data.long_prompts=truncate"
            return prompt, {"problem": json.dumps([where, problem, remedy])}
        ids = self.template.prompt_ids(fitting)
        return fitting, {"input_ids": ids, "prompt_tokens": len(ids), "length": len(ids), "truncated": True}

    def response(self, text: str, prompt_tokens: int) -> tuple[list[int], bool]:
        """Its ids, without an end token where they had to be cut; whether they were."""
        limit = self.max_response_tokens
        if self.context is not None:
            limit = min(limit, self.context - prompt_tokens)
        ids = self.template.response_ids(text)
        return ids[:limit], len(ids) > limit


class _PromptCoder(_Coder[Prompt]):
    def encode(self, record: Prompt) -> dict[str, Any]:
        return self.prompt(record)[1]


class _DemonstrationCoder(_Coder[Demonstration]):
    def __init__(self, *args: Any, loss_on: LossOn) -> None:
        super().__init__(*args)
        self.loss_on = loss_on

    def features(self) -> dict[str, Any]:
        from datasets import List, Value

        return {**super().features(), "labels": List(Value("int32"))}

    def encode(self, record: Demonstration) -> dict[str, Any]:
        prompt, row = self.prompt(record.prompt)
        if "problem" in row:
            return row
        ids = row["input_ids"]
        response, cut = self.response(record.response, len(ids))
        labels = [IGNORED] * len(ids)
        if self.loss_on == LossOn.all:
            mask = self.template.prompt_mask(prompt)
            labels = [token if learned else IGNORED for token, learned in zip(ids, mask, strict=True)]
        together = ids + response
        return {**row, "input_ids": together, "labels": labels + response, "length": len(together), "cut": int(cut)}


class _RankingCoder(_Coder[Ranking]):
    def features(self) -> dict[str, Any]:
        from datasets import List, Value

        return {**super().features(), "input_ids": List(List(Value("int32")))}

    def encode(self, record: Ranking) -> dict[str, Any]:
        _, row = self.prompt(record.prompt)
        if "problem" in row:
            return row
        ids = row["input_ids"]
        responses = [self.response(text, len(ids)) for text in record.completions]
        sequences = [ids + response for response, _ in responses]
        cut = sum(was_cut for _, was_cut in responses)
        told_apart = any(
            sequences[i] != sequences[j] and record.ranks[i] != record.ranks[j]
            for i, j in itertools.combinations(range(len(sequences)), 2)
        )
        alike = cut > 0 and not told_apart and len(set(record.ranks)) > 1
        return {**row, "input_ids": sequences, "length": max(map(len, sequences)), "cut": cut, "alike": alike}


def _cached_table(
    coder: _Coder[R], records: Sequence[R], known_as: str, config: DataConfig, show_progress: bool
) -> Dataset:
    from datasets import Dataset, Features, concatenate_datasets

    workers = config.workers or len(os.sched_getaffinity(0))

    def make(folder: Path) -> None:
        log.info("tokenizing %s records in %s processes", f"{len(records):,}", workers)
        numbers = Dataset.from_dict({"record": np.arange(len(records))})

        def encode(batch: dict[str, list[int]]) -> dict[str, list[Any]]:
            first, last = batch["record"][0], batch["record"][-1]
            return coder.columns(list(records[first : last + 1]), first)

        with _progress_bars(show_progress):
            numbers.map(
                encode,
                batched=True,
                num_proc=workers,
                features=Features(coder.features()),
                cache_file_name=str(folder / "tokens.arrow"),
                new_fingerprint=name[:32],
                desc="tokenizing",
            )

    name = _table_name(coder, known_as)
    folder = made_once(cache_folder(config.cache) / "tokens" / name, make)
    return concatenate_datasets([Dataset.from_file(str(file)) for file in sorted(folder.glob("*.arrow"))])


def _table_name(coder: _Coder[Any], records: str) -> str:
    """The hash of everything that decides the ids."""
    tokenizer = coder.template.tokenizer
    spelled = tokenizer.backend_tokenizer.to_str() if tokenizer.is_fast else repr(sorted(tokenizer.get_vocab().items()))
    settings = {key: str(value) for key, value in vars(coder).items() if key != "template"}
    here = Path(__file__).parent
    code = [(here / f"{module}.py").read_text(encoding="utf-8") for module in ("encoding", "templates")]
    parts = [records, type(coder).__name__, settings, coder.template.hash, spelled, code]
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


@contextlib.contextmanager
def _progress_bars(show: bool) -> Iterator[None]:
    """datasets' own bar where there is a terminal for it."""
    import datasets

    if show and sys.stderr.isatty():
        datasets.enable_progress_bars()
    try:
        yield
    finally:
        datasets.disable_progress_bars()

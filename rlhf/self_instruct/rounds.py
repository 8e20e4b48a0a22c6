"""The loop: instructions are proposed from the pool, sorted into kinds, given instances, sifted, and join the pool.

Every random choice of a round is a function of the seed, the round's number and what earlier rounds kept, so a run that
goes on after an interruption takes the same steps as one that was never stopped.
"""

from __future__ import annotations

import hashlib
import random
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

from rlhf.errors import UserError
from rlhf.self_instruct import filters, parse, prompts
from rlhf.self_instruct.filters import Reason
from rlhf.self_instruct.pool import Nearest, Pool, nearest_of
from rlhf.self_instruct.records import Completion, Instance, SeedTask, Writer
from rlhf.self_instruct.store import DROPPED, Round, Store

if TYPE_CHECKING:
    from rlhf.config import SelfInstructConfig

_KIND_TOKENS = 8  # yes or no, and what a model puts around it
_SHOWN = 2000  # characters of a completion that dropped.jsonl keeps


@dataclass(frozen=True)
class Candidate:
    """A new instruction that passed its filters."""

    instruction: str
    nearest: Nearest  # in the whole pool
    seed_rouge_l: float  # to the nearest seed


def grow(
    seeds: Sequence[SeedTask],
    writer: Writer,
    store: Store,
    config: SelfInstructConfig,
    seed: int,
    before_commit: Callable[[Round], None] = lambda made: None,
) -> None:
    """Adds rounds to `store` until it holds `config.instructions`, the last round's surplus included.

    before_commit: is given each round before it is written.
    Raises UserError after `config.patience` rounds in a row that kept nothing.
    """
    growth = _Growth(seeds, writer, store, config, seed)
    while len(store.instructions) < config.instructions:
        if store.fruitless >= config.patience:
            raise _fruitless_error(store, config)
        made = growth.round(len(store.rounds))
        before_commit(made)
        store.commit(made)
        growth.join(made)


class _Growth:
    def __init__(
        self, seeds: Sequence[SeedTask], writer: Writer, store: Store, config: SelfInstructConfig, seed: int
    ) -> None:
        self._seeds = list(seeds)
        self._examples = [task for task in seeds if prompts.short_enough(task)]
        self._writer = writer
        self._store = store
        self._config = config
        self._seed = seed
        self._seed_pool = Pool(task.instruction for task in seeds)
        self._pool = Pool(store.instructions)
        self._known = {filters.alike(text) for text in [*(task.instruction for task in seeds), *store.instructions]}

    def round(self, number: int) -> Round:
        made = Round(number)
        candidates = self._new_instructions(made)
        kinds = self._kinds(candidates, made)
        self._add_instances(kinds, made)
        return made

    def join(self, made: Round) -> None:
        for row in made.instructions:
            self._pool.add(row["instruction"])
            self._known.add(filters.alike(row["instruction"]))

    # Instructions

    def _new_instructions(self, made: Round) -> list[Candidate]:
        config = self._config
        shown = [self._shown(made.number, index) for index in range(config.prompts_per_round)]
        completions = self._complete(
            [text for text, _ in shown],
            made.number,
            "proposing",
            tokens=config.instruction_tokens,
            temperature=config.temperature,
            # Prompts may show different numbers of tasks where the context is short.
            stop=prompts.propose_stop(max(count for _, count in shown), config.proposals),
        )
        candidates: list[Candidate] = []
        this_round = Pool()
        seen: set[str] = set()
        for (_, count), completion in zip(shown, completions, strict=True):
            first = count + 1 if self._writer.continues else None
            for text, cut in self._proposals(completion, first, made):
                made.proposed += 1
                problem = Reason.cut_instruction if cut else filters.instruction_problem(text, self._config)
                if problem is None and filters.alike(text) in self._known | seen:
                    problem = Reason.duplicate_instruction
                if problem is not None:
                    made.drop(problem.name, instruction=text)
                    continue
                nearest = nearest_of((self._seed_pool, self._pool, this_round), text)
                if nearest.rouge_l >= config.max_similarity:
                    likeness = {"most_similar": nearest.text, "rouge_l": nearest.rouge_l}
                    made.drop(Reason.similar.name, instruction=text, **likeness)
                    continue
                this_round.add(text)
                seen.add(filters.alike(text))
                candidates.append(Candidate(text, nearest, self._seed_pool.nearest(text).rouge_l))
        return candidates

    def _shown(self, number: int, index: int) -> tuple[str, int]:
        """One prompt for new instructions, and how many it shows: seeds, and some of what earlier rounds kept."""
        config, rng = self._config, self._rng("tasks", number, index)
        generated = rng.sample(self._store.instructions, min(config.generated_examples, len(self._store.instructions)))
        wanted = config.seed_examples + config.generated_examples - len(generated)
        tasks = [task.instruction for task in rng.sample(self._seeds, min(wanted, len(self._seeds)))] + generated
        rng.shuffle(tasks)
        for count in range(len(tasks), 0, -1):
            prompt = prompts.propose(tasks[:count], count=config.proposals, continues=self._writer.continues)
            if self._writer.fits(prompt, config.instruction_tokens):
                return prompt, count
        raise UserError(
            f"A prompt with one task and self_instruct.instruction_tokens={config.instruction_tokens} do not fit the "
            "model's context; lower self_instruct.instruction_tokens."
        )

    def _proposals(self, completion: Completion, first: int | None, made: Round) -> list[tuple[str, bool]]:
        """Instructions of a completion, each with whether it was cut."""
        found = parse.instructions(completion.text, first=first)
        if not found:
            made.drop(Reason.nothing_proposed.name, completion=completion.text[:_SHOWN])
        last = len(found) - 1
        return [(text, place == last and not completion.finished) for place, text in enumerate(found)]

    # Kinds

    def _kinds(self, candidates: Sequence[Candidate], made: Round) -> list[tuple[Candidate, bool]]:
        """The candidates whose prompts fit, each with whether it is a classification."""
        asked = []
        for index, candidate in enumerate(candidates):
            examples = self._both_kinds(self._rng("kinds", made.number, index))
            prompt = self._fitting(partial(prompts.classify, candidate.instruction), examples, _KIND_TOKENS)
            if prompt is None:
                made.drop(Reason.no_room.name, instruction=candidate.instruction)
            else:
                asked.append((candidate, prompt))
        completions = self._complete(
            [prompt for _, prompt in asked],
            made.number,
            "sorting into kinds",
            tokens=_KIND_TOKENS,
            temperature=self._config.instance_temperature,
            stop=prompts.CLASSIFY_STOP,
        )
        return [
            (candidate, parse.is_classification(completion.text))
            for (candidate, _), completion in zip(asked, completions, strict=True)
        ]

    def _both_kinds(self, rng: random.Random) -> list[SeedTask]:
        """Seed tasks, half of them classifications as far as there are any, in random order."""
        count = self._config.instance_examples
        chosen = [
            task
            for kind, wanted in ((True, count // 2), (False, count - count // 2))
            for task in self._of_kind(kind, wanted, rng)
        ]
        rng.shuffle(chosen)
        return chosen

    def _of_kind(self, is_classification: bool, count: int, rng: random.Random) -> list[SeedTask]:
        tasks = [task for task in self._examples if task.is_classification == is_classification]
        return rng.sample(tasks, min(count, len(tasks)))

    # Instances

    def _add_instances(self, kinds: Sequence[tuple[Candidate, bool]], made: Round) -> None:
        config = self._config
        asked = []
        for index, (candidate, is_classification) in enumerate(kinds):
            build = prompts.output_first if is_classification else prompts.input_first
            rng = self._rng("instances", made.number, index)
            examples = self._of_kind(is_classification, config.instance_examples, rng)
            prompt = self._fitting(partial(build, candidate.instruction), examples, config.instance_tokens)
            if prompt is None:
                made.drop(Reason.no_room.name, instruction=candidate.instruction)
            else:
                asked.append((candidate, is_classification, prompt))
        completions = self._complete(
            [prompt for _, _, prompt in asked],
            made.number,
            "writing instances",
            tokens=config.instance_tokens,
            temperature=config.instance_temperature,
            stop=prompts.INSTANCES_STOP,
        )
        for (candidate, is_classification, _), completion in zip(asked, completions, strict=True):
            self._keep(candidate, is_classification, completion, made)

    def _keep(self, candidate: Candidate, is_classification: bool, completion: Completion, made: Round) -> None:
        instruction = candidate.instruction
        kept, dropped = filters.sift(
            self._instances(completion.text, is_classification),
            finished=completion.finished,
            max_instances=self._config.max_instances,
        )
        for instance, reason in dropped:
            made.drop(reason.name, instruction=instruction, input=instance.input, output=instance.output)
        if not kept:
            made.drop(Reason.no_instance.name, instruction=instruction, completion=completion.text[:_SHOWN])
            return
        made.instructions.append(
            {
                "instruction": instruction,
                "is_classification": is_classification,
                "round": made.number,
                "instances": len(kept),
                "most_similar": candidate.nearest.text,
                "rouge_l": candidate.nearest.rouge_l,
                "seed_rouge_l": candidate.seed_rouge_l,
            }
        )
        made.instances += [
            {
                "instruction": instruction,
                "input": instance.input,
                "output": instance.output,
                "is_classification": is_classification,
                "round": made.number,
            }
            for instance in kept
        ]

    def _instances(self, text: str, is_classification: bool) -> list[Instance]:
        if is_classification:
            return parse.output_first(text, continues=self._writer.continues)
        return parse.input_first(text)

    # What both kinds of prompt need

    def _fitting(
        self, build: Callable[[Sequence[SeedTask]], str], examples: Sequence[SeedTask], tokens: int
    ) -> str | None:
        """The prompt with as many of the examples as fit, None where it does not fit without any."""
        for count in range(len(examples), -1, -1):
            prompt = build(examples[:count])
            if self._writer.fits(prompt, tokens):
                return prompt
        return None

    def _complete(
        self, asked: list[str], number: int, doing: str, *, tokens: int, temperature: float, stop: list[str]
    ) -> list[Completion]:
        if not asked:
            return []
        return self._writer.complete(
            asked,
            max_tokens=tokens,
            temperature=temperature,
            stop=stop,
            seed=_number(f"{self._seed}:{number}:{doing}"),
            doing=f"self_instruct: {doing}",
        )

    def _rng(self, *what: object) -> random.Random:
        return random.Random(":".join(map(str, (self._seed, *what))))


def _number(key: str) -> int:
    """Fewer than 31 bits, as some servers take no larger seed."""
    return int.from_bytes(hashlib.sha256(key.encode()).digest()[:4], "big") >> 2


def _fruitless_error(store: Store, config: SelfInstructConfig) -> UserError:
    since = len(store.rounds) - store.fruitless
    reasons = Counter(row["reason"] for row in store.rows(DROPPED) if row["round"] >= since)
    seen = "; ".join(f"{count} x {Reason[name].value}" for name, count in reasons.most_common())
    return UserError(
        f"{store.fruitless} rounds in a row kept no instruction; {len(store.instructions)} of {config.instructions} "
        f"are there. Dropped: {seen}. {DROPPED} in the stage's folder lists each: use a stronger model "
        "(self_instruct.model, or self_instruct.server), loosen the filter that is named most, or raise "
        "self_instruct.patience to go on."
    )

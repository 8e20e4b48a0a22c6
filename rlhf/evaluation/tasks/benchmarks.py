"""Held-out task performance of every candidate: multiple choice of the data's or of a file, and lm-eval's tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.config import CompareConfig, Config, DataConfig, DataSourceName
from rlhf.data.files import RowFiles, Table, shorten
from rlhf.data.records import DataSource, HasBenchmark, MultipleChoice
from rlhf.data.rows import rows_of
from rlhf.errors import UserError
from rlhf.evaluation.answering.answers import Model
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.statistics.win_rates import CONFIDENCE, by_task
from rlhf.evaluation.tasks import lm_eval
from rlhf.runtime import distributed
from rlhf.runtime.files import write_text_atomic
from rlhf.runtime.jsonl import json_line

KEY = "compare.benchmark"
_FORM = "{context: text, options: [text, text, ...], answer: the right one's place, from 0, task: its family or none}"


@dataclass(frozen=True)
class Benchmark:
    name: str
    items: Sequence[MultipleChoice]

    @property
    def chance(self) -> float:
        """The accuracy of choosing at random."""
        return sum(1 / len(item.options) for item in self.items) / len(self.items)


@dataclass(frozen=True)
class HeldOut:
    """What a candidate knows of the held-out tasks."""

    numbers: dict[str, Any]  # by benchmark, as report.json has them; {} where none was asked for
    right: tuple[float, ...] = ()  # of our own multiple choice, 1 for an item that it gets right, else 0


def require(config: CompareConfig) -> None:
    """Raises UserError for what no candidate could be measured on, before any model loads."""
    if config.benchmark is not None:
        read(config.benchmark)
    lm_eval.require(config)


def benchmark_of(config: CompareConfig, data: DataSource) -> Benchmark | None:
    """compare.benchmark, else the data's own; None where there is neither, or compare.benchmark_items is 0."""
    if config.benchmark_items == 0:
        return None
    if config.benchmark is not None:
        name, items = Path(config.benchmark).name.partition(".")[0], read(config.benchmark)
    elif isinstance(data, HasBenchmark):
        name, items = DataSourceName.sandbox.value, list(data.benchmark())
    else:
        return None
    if name in config.lm_eval:
        raise UserError(f"compare.lm_eval has a task {name}, as compare.benchmark's file is called; rename the file.")
    return Benchmark(name, items[: config.benchmark_items])


def read(path: str) -> list[MultipleChoice]:
    """A file's items. An option follows its context as both are written: the space between belongs to one of them.

    Raises UserError for a row of another form, or for no row at all.
    """
    items = [_item(row.values, row.where) for row in rows_of(path, KEY)]
    if not items:
        raise UserError(f"{path} holds no item; set {KEY} to a file with rows of {_FORM}.")
    return items


def _item(values: Mapping[str, Any], where: str) -> MultipleChoice:
    context: Any = values.get("context")
    options: Any = values.get("options")
    answer: Any = values.get("answer")
    task: Any = values.get("task")

    def expect(right: bool, problem: str) -> None:
        if not right:
            raise UserError(f"{where}: {problem}; {KEY} takes rows of {_FORM}.")

    expect(isinstance(context, str) and context.strip() != "", f"its `context` is {shorten(context)!r}, no text")
    listed = isinstance(options, list) and all(isinstance(option, str) and option.strip() for option in options)
    expect(listed and len(options) > 1, f"its `options` are {shorten(options)}, not two texts or more")
    expect(len(set(options)) == len(options), "two of its `options` are the same")
    in_range = isinstance(answer, int) and not isinstance(answer, bool) and 0 <= answer < len(options)
    expect(in_range, f"its `answer` is {shorten(answer)!r}, not a place from 0 to {len(options) - 1}")
    expect(task is None or isinstance(task, str), f"its `task` is {shorten(task)!r}, no text")
    return MultipleChoice(context, tuple(options), answer, task or "")


def fingerprint(config: CompareConfig) -> dict[str, str]:
    """Of the files that stand behind the config's paths; {} where it names none."""
    found = {}
    if config.benchmark is not None:
        source = DataConfig(source=DataSourceName.jsonl, path=config.benchmark)
        found["benchmark_sha256"] = RowFiles(config.benchmark, KEY, source, Table()).sha256
    if config.lm_eval_path is not None:
        found["lm_eval_sha256"] = lm_eval.tasks_hash(config.lm_eval_path)
    return found


def measure(
    paths: Mapping[str, str], benchmark: Benchmark | None, config: Config, cache: AnswerCache, folder: Path
) -> dict[str, HeldOut]:
    """What each candidate knows, by name; benchmark.jsonl in `folder` gets every item with what each one chose.

    Candidates with the same model are measured once, and one whose likelihoods `cache` knows is not loaded.
    """
    if benchmark is None and not config.compare.lm_eval:
        return {name: HeldOut({}) for name in paths}
    logprobs: dict[str, list[list[float]]] = {}
    measured: dict[str, HeldOut] = {}
    for path in dict.fromkeys(paths.values()):
        logprobs[path], measured[path] = _measure(Model(path, config, cache), benchmark, config)
    if benchmark is not None and distributed.is_main_process():
        rows = _rows(benchmark, {name: logprobs[path] for name, path in paths.items()})
        write_text_atomic(folder / "benchmark.jsonl", "".join(json_line(row) for row in rows))
    return {name: measured[path] for name, path in paths.items()}


def _measure(model: Model, benchmark: Benchmark | None, config: Config) -> tuple[list[list[float]], HeldOut]:
    from rlhf.evaluation.answering.multiple_choice import chosen

    logprobs: list[list[float]] = []
    measured: dict[str, Any] = {}
    right: tuple[float, ...] = ()
    if benchmark is not None:
        logprobs = model.option_logprobs(benchmark.items)
        choices = chosen(logprobs)
        right = gets_right(benchmark.items, choices)
        measured[benchmark.name] = summary(benchmark.items, choices) | {"chance": benchmark.chance}
    if config.compare.lm_eval:
        measured |= distributed.from_main(lambda: lm_eval.evaluate(model.causal_lm, model.tokenizer, config))
    return logprobs, HeldOut(measured, right)


def gets_right(items: Sequence[MultipleChoice], choices: Sequence[int]) -> tuple[float, ...]:
    """(items,): 1 where the choice is the right option's place, else 0."""
    return tuple(float(choice == item.answer) for item, choice in zip(items, choices, strict=True))


def summary(items: Sequence[MultipleChoice], choices: Sequence[int]) -> dict[str, Any]:
    """`accuracy` with its 95 % interval `ci` (Wilson's, which has a width at 0 and 1 too) over `n`, and by task."""
    right = gets_right(items, choices)
    tasks = by_task([item.task for item in items])
    return {
        **_accuracy(right),
        "tasks": {task: _accuracy([right[row] for row in rows]) for task, rows in tasks.items()},
    }


def _accuracy(right: Sequence[float]) -> dict[str, Any]:
    from scipy.stats import binomtest

    hits, count = int(sum(right)), len(right)
    interval = binomtest(hits, count).proportion_ci(CONFIDENCE, method="wilson")
    return {"accuracy": hits / count, "ci": [float(interval.low), float(interval.high)], "n": count}


def _rows(benchmark: Benchmark, logprobs: Mapping[str, Sequence[Sequence[float]]]) -> list[dict[str, Any]]:
    return [
        {
            "task": item.task,
            "context": item.context,
            "options": list(item.options),
            "answer": item.answer,
            "logprobs": {name: options[i] for name, options in logprobs.items()},  # nats, an option each
        }
        for i, item in enumerate(benchmark.items)
    ]

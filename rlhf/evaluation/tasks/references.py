"""Text metrics of candidates' answers, on the held-out prompts to which the data has a reference."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rlhf.config import CompareConfig, TextMetric
from rlhf.data.records import DataSource, Prompt, Split
from rlhf.data.store import key_of
from rlhf.errors import UserError
from rlhf.evaluation.statistics.win_rates import Bootstrap, interval
from rlhf.evaluation.tasks.text_metrics import score
from rlhf.sandbox.families import right_answers
from rlhf.sandbox.source import SandboxSource


def references(source: DataSource, prompts: Sequence[Prompt]) -> list[list[str]]:
    """For each prompt, what may be said: the responses of its held-out demonstrations; [] where there is none.

    In the sandbox, whose demonstrations are by imperfect writers, the right answer where there is only one.
    """
    if isinstance(source, SandboxSource):
        return [right_answers(dict(prompt.details)) for prompt in prompts]
    told: dict[str, list[str]] = {}
    try:
        demonstrations = source.demonstrations(Split.evaluation)
    except UserError:  # it has none
        demonstrations = []
    for demonstration in demonstrations:
        told.setdefault(key_of(demonstration), []).append(demonstration.response)
    return [told.get(key_of(prompt), []) for prompt in prompts]


def wanted_references(config: CompareConfig, source: DataSource, prompts: Sequence[Prompt]) -> list[list[str]]:
    """`references` for compare.metrics, [] for none of these. Raises UserError where no prompt has a reference."""
    if not config.metrics:
        return []
    found = references(source, prompts)
    if not any(found):
        raise UserError(
            "compare.metrics needs references, and no held-out prompt has one: the data has no demonstrations of them; "
            "leave compare.metrics out, or bring data with demonstrations."
        )
    return found


def measure(
    texts: Sequence[str],
    told: Sequence[Sequence[str]],
    metrics: Sequence[TextMetric],
    *,
    bootstrap_samples: int,
    seed: int,
) -> dict[str, dict[str, Any]]:
    """Each metric's numbers by name: `value` from 0 to 100, its 95 % interval `ci`, over `n` prompts with a reference.

    The same resampled prompts for every candidate.
    """
    rows = [row for row, references_of_row in enumerate(told) if references_of_row]
    bootstrap = Bootstrap(len(rows), samples=bootstrap_samples, seed=seed)
    found = {}
    for metric in dict.fromkeys(metrics):
        for scores in score(metric, [texts[row] for row in rows], [told[row] for row in rows]):
            estimate = interval(scores.value, scores.of_sums(bootstrap.sums(scores.summands)), len(rows))
            found[scores.name] = {"value": estimate.mean, "ci": estimate.ci, "n": estimate.n}
    return found


def add(
    report: Mapping[str, Any],
    texts: Mapping[str, Sequence[str]],
    told: Sequence[Sequence[str]],
    config: CompareConfig,
    seed: int,
) -> None:
    """Gives each candidate of a comparison its `metrics`; texts: by candidate, an answer a prompt."""
    for name, answers in texts.items():
        report["candidates"][name]["metrics"] = measure(
            answers, told, config.metrics, bootstrap_samples=config.bootstrap_samples, seed=seed
        )

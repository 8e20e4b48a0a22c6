"""Report: gathers what a run and its sweeps trained, measures it on the same prompts, and says what holds."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import JudgeName
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Prompt, Split
from rlhf.errors import UserError
from rlhf.evaluation.answering.answers import usable_prompts
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.comparison.page import how_it_was_made
from rlhf.evaluation.sweeps import claim_tables, page, tables
from rlhf.evaluation.sweeps.claims import chosen, claims, statement
from rlhf.evaluation.sweeps.gather import Gathered, gather
from rlhf.evaluation.sweeps.measure import Measurer, Study, study
from rlhf.evaluation.sweeps.plots import figures
from rlhf.evaluation.sweeps.summary import Measured, mean_kl, summarise
from rlhf.runtime.distributed import is_main_process
from rlhf.runtime.files import write_json_atomic, write_text_atomic
from rlhf.runtime.jsonl import json_line
from rlhf.runtime.printable import printable

if TYPE_CHECKING:
    from rlhf.training.context import StageContext


def run(context: StageContext) -> dict[str, float]:
    """Writes report.json, report.html, tables and responses, prints the table, returns the manifest's numbers."""
    config, folder = context.config, context.folder.path
    gathered = gather([folder.parent, *map(Path, config.report.runs)])
    models = [str(path) for path in (*gathered.bases.values(), *(policy.model for policy in gathered.policies))]
    bad_rows = BadRows(config.data.on_bad_row, folder / "bad_rows.jsonl", append=True)
    held_out = list(context.data.prompts(Split.evaluation))[: config.compare.prompts]
    prompts = usable_prompts(models, held_out, config, bad_rows)
    if not prompts:
        raise UserError("There is no held-out prompt to compare on; raise data.evaluation_fraction, or give more rows.")

    cache = AnswerCache(folder.parent / "answers")
    measurer = Measurer(prompts, context.data, config, cache, judge_of(context, gathered))
    made = study(gathered, measurer)
    report = summarise(made.measured, wanted_kl=config.report.matched_kl, unfinished=gathered.unfinished)
    found = claims(made.measured, config.report.matched_kl)
    report |= {
        "statement": statement(made.measured, found),
        "claims": [claim.json() for claim in found],
        "remarks": remarks(gathered, made.measured),
        "bootstrap_samples": config.compare.bootstrap_samples,
    }
    if is_main_process():
        _write(context, report, made, prompts)
    return metrics(report)


def judge_of(context: StageContext, gathered: Gathered) -> Path | None:
    """The reward model that judges: judge.reward_model, or without gold scores the policies' own; None judges by gold.

    Raises UserError where there is none of them.
    """
    wanted, named = context.config.judge.names, context.parents.get("judge")
    if context.data.gold is not None and (not wanted or wanted[0] == JudgeName.gold):
        return None
    own = next((policy.reward_model for policy in reversed(gathered.policies) if policy.reward_model), None)
    if named is None and own is None:
        source = context.config.data.source.value
        raise UserError(
            f"There is no judge: data={source} has no gold score, and no policy was trained on a reward model; set "
            "judge.reward_model=PATH_OR_HUB_ID."
        )
    return named or own


def remarks(gathered: Gathered, measured: Measured) -> list[str]:
    """What a careful reader should know beside the claims."""
    found = []
    if gathered.unfinished:
        found.append(
            f"{len(gathered.unfinished)} jobs are not finished and left out: {', '.join(gathered.unfinished)}. The "
            "sweep's command goes on with them."
        )
    if not measured.independent:
        found.append(
            "The judge is a reward model that policies were trained on, so nothing here shows over-optimisation; name "
            "another with judge.reward_model=PATH_OR_HUB_ID."
        )
    if all(len(setting.policies) == 1 for setting in gathered.settings):
        found.append("Every setting has one seed, so intervals say nothing of how much another would differ.")
    for label in (label for curve in measured.kl_curves for label in curve):
        if mean_kl(measured.point(label)) == 0:
            found.append(
                f"The KL of {label} was drawn below 0 and is shown as 0: it is smaller than these prompts tell."
            )
    return found


def metrics(report: Mapping[str, Any]) -> dict[str, float]:
    """The numbers that belong in the manifest, as report/<point>_<quantity>."""
    return {
        f"report/{point['label'].replace(' ', '_')}_{quantity}": point[quantity]["mean"]
        for point in report["points"]
        for quantity in ("judge", "kl", "wins_sft")
        if point[quantity] is not None
    }


def shown_side_by_side(measured: Measured) -> list[str]:
    """Points whose answers stand side by side: of the largest size base, SFT, the chosen PPO and what went furthest."""
    base = measured.largest
    labels = [point.label for method in ("base", "sft") for point in measured.find(method, base)]
    labels += [point.label for method in ("ppo", "ppo-ptx") if (point := chosen(measured, base, method)) is not None]
    for curve in measured.kl_curves:
        points = [measured.point(label) for label in curve]
        if points[0].base == base:
            labels.append(max(points, key=mean_kl).label)
    return list(dict.fromkeys(labels))


def response_rows(made: Study, prompts: Sequence[Prompt]) -> list[dict[str, Any]]:
    """What responses.jsonl holds: a prompt a line, with the answers, scores and KL of every point's first seed."""
    return [
        {
            "id": prompt.id,
            "task": prompt.task,
            "messages": [{"role": m.role.value, "content": m.content} for m in prompt.messages],
            "candidates": {label: answered.row(place) for label, answered in made.answers.items()},
        }
        for place, prompt in enumerate(prompts)
    ]


def _write(context: StageContext, report: Mapping[str, Any], made: Study, prompts: Sequence[Prompt]) -> None:
    config, folder = context.config, context.folder.path
    rows = response_rows(made, prompts)
    write_json_atomic(folder / "report.json", report)
    write_text_atomic(folder / "responses.jsonl", "".join(json_line(row) for row in rows))
    for name in ("points", "best_of_n", "matched_kl", "fits"):
        table = getattr(tables, name)(report)
        if table:
            write_text_atomic(folder / f"{name}.csv", tables.csv_text(table))
    labels = shown_side_by_side(made.measured)
    few = [{**row, "candidates": {label: row["candidates"][label] for label in labels}} for row in rows]
    how = how_it_was_made(config, context.data.fingerprint(), folder, {})
    html = page.render(report, figures(made.measured), few, how, made.paths, side_by_side=config.compare.side_by_side)
    write_text_atomic(folder / "report.html", html)
    print(f"\n{printable(tables.terminal(report))}\n")
    for line in (*claim_tables.lines(report["claims"]), *report["remarks"]):
        print(printable(line))
    print(f"Report: {folder / 'report.html'}")

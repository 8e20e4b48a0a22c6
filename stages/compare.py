"""Comparison: every candidate answers the same held-out prompts, judges score the answers, a report says who wins."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.artifacts import write_json_atomic, write_text_atomic
from rlhf.config import Config, JudgeName
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import DataSource, Prompt, Split
from rlhf.distributed import is_main_process
from rlhf.engine import pick_device
from rlhf.errors import UserError
from rlhf.evaluation import references
from rlhf.evaluation import report as html
from rlhf.evaluation.answering import Generated, answer, kl_from_reference, scored_sequences, usable_prompts
from rlhf.evaluation.comparison import Answers, metrics, summarise, text_table
from rlhf.evaluation.curves import load_curves
from rlhf.evaluation.judges import GoldJudge, RewardModelJudge
from rlhf.models import load_reward_model, load_tokenizer
from rlhf.tracking import json_line

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext

CHAIN = ("base", "sft", "ppo")  # candidates that the run itself makes, by their keys among the parents
FURTHER = "candidates/"
UNITS = {JudgeName.gold: GoldJudge.unit, JudgeName.reward_model: RewardModelJudge.unit}


def run(context: StageContext) -> dict[str, float]:
    """Writes report.json, responses.jsonl and report.html, prints the table, returns the manifest's numbers."""
    config, folder = context.config, context.folder.path
    paths = candidate_paths(context.parents, config)
    judges = judge_names(config, context.data, context.parents)
    prompts = context.data.prompts(Split.evaluation)[: config.compare.prompts]
    if not prompts:
        raise UserError("There is no held-out prompt to compare on; raise data.evaluation_fraction, or give more rows.")
    bad_rows = BadRows(config.data.on_bad_row, folder / "bad_rows.jsonl", append=True)
    prompts = usable_prompts(paths, prompts, config, bad_rows)
    told = references.wanted_references(config.compare, context.data, prompts)

    generated = {name: answer(path, name, prompts, context.data, config) for name, path in paths.items()}
    kl = kl_from_reference(paths.get("sft"), generated, config)
    scores = {judge.value: _score(judge, generated, prompts, context) for judge in judges}
    answers = {
        name: Answers(
            path=paths[name],
            texts=given.texts,
            tokens=[len(ids) for ids in given.response_ids],
            ended=given.ended,
            scores={judge: by_candidate[name] for judge, by_candidate in scores.items()},
            kl=kl[name],
            # Losses a token compare only where the tokens are the same, which is where there is a KL.
            text_loss=given.text_loss if kl[name] is not None or "sft" not in paths else None,
        )
        for name, given in generated.items()
    }
    report = summarise(
        answers,
        [prompt.task for prompt in prompts],
        baseline=config.compare.baseline,
        judges={judge.value: UNITS[judge] for judge in judges},
        tie_margin=config.judge.tie_margin,
        bootstrap_samples=config.compare.bootstrap_samples,
        seed=config.seed,
    )
    if told:
        references.add(
            report, {name: given.texts for name, given in answers.items()}, told, config.compare, config.seed
        )

    numbers = metrics(report)
    if is_main_process():
        _write(context, report, response_rows(prompts, answers), paths)
    return numbers


def _write(
    context: StageContext,
    report: dict[str, Any],
    responses: Sequence[Mapping[str, object]],
    paths: Mapping[str, str],
) -> None:
    config, folder = context.config, context.folder.path
    write_json_atomic(folder / "report.json", report)
    write_text_atomic(folder / "responses.jsonl", "".join(json_line(row) for row in responses))
    made = html.how_it_was_made(config, context.data.fingerprint(), folder, context.parents)
    curves = load_curves(paths, context.parents)
    page = html.render(report, responses, curves, made, side_by_side=config.compare.side_by_side)
    write_text_atomic(folder / "report.html", page)

    context.tracker.rewind(-1)
    context.tracker.log(0, metrics(report))
    print(f"\n{text_table(report)}\n\n{report['statement']}")
    for remark in report["remarks"]:
        print(remark)
    print(f"Report: {folder / 'report.html'}")


def candidate_paths(parents: Mapping[str, Path], config: Config) -> dict[str, str]:
    """Candidates by name -> folder or hub id: the chain's own, a sweep's, and compare.candidates.

    Raises UserError when a name is taken twice or the baseline is none of them.
    """
    paths = {name: str(parents[name]) for name in CHAIN if name in parents}
    further = {key.removeprefix(FURTHER): str(path) for key, path in parents.items() if key.startswith(FURTHER)}
    for name, path in (further | config.compare.candidates).items():
        if name in paths and paths[name] != path:
            raise UserError(
                f"compare.candidates names {name}, which is {paths[name]} of this run already; choose another name."
            )
        paths[name] = path
    if config.compare.baseline not in paths:
        raise UserError(
            f"compare.baseline={config.compare.baseline} is none of the candidates, which are {', '.join(paths)}; "
            "choose one of them, or add it to compare.candidates."
        )
    return paths


def judge_names(config: Config, data: DataSource, parents: Mapping[str, Path]) -> list[JudgeName]:
    """judge.names, or gold and the reward model as far as they are there. Raises UserError when one is missing."""
    available = [JudgeName.gold] if data.gold is not None else []
    available += [JudgeName.reward_model] if "reward_model" in parents else []
    wanted = list(dict.fromkeys(config.judge.names)) or available
    if not wanted:
        raise UserError(
            "There is no judge: this data has no gold score and the run no reward model; "
            "run `python -m rlhf stage=reward`, or set judge.reward_model=PATH_OR_HUB_ID."
        )
    for judge in wanted:
        if judge == JudgeName.gold and judge not in available:
            raise UserError(
                f"judge.names holds gold, but data={config.data.source.value} has no gold score; "
                "use judge.names=[reward_model]."
            )
        if judge == JudgeName.reward_model and judge not in available:
            raise UserError(
                "judge.names holds reward_model, but the run has none; run `python -m rlhf stage=reward`, or set "
                "judge.reward_model=PATH_OR_HUB_ID."
            )
    return wanted


def _score(
    name: JudgeName, generated: Mapping[str, Generated], prompts: Sequence[Prompt], context: StageContext
) -> dict[str, list[float]]:
    """Every candidate's scores by one judge, which sees all answers in one call so that equal ones score alike."""
    config = context.config
    every_prompt = [prompt for _ in generated for prompt in prompts]
    every_text = [text for given in generated.values() for text in given.texts]
    if name == JudgeName.gold:
        assert context.data.gold is not None
        flat = GoldJudge(context.data.gold).score(every_prompt, every_text, [[]] * len(every_text))
    else:
        path = str(context.parents["reward_model"])
        tokenizer = load_tokenizer(path, trust_remote_code=config.model.trust_remote_code)
        sequences = [ids for given in generated.values() for ids in scored_sequences(given, prompts, tokenizer, config)]
        model = load_reward_model(path, config.model).to(pick_device(config.launch))  # type: ignore[arg-type]
        flat = RewardModelJudge(model).score(every_prompt, every_text, sequences)
    return {
        candidate: flat[place * len(prompts) : (place + 1) * len(prompts)] for place, candidate in enumerate(generated)
    }


def response_rows(prompts: Sequence[Prompt], answers: Mapping[str, Answers]) -> list[dict[str, object]]:
    """What responses.jsonl holds: a prompt a line, with every candidate's response, scores and KL."""
    return [
        {
            "id": prompt.id,
            "task": prompt.task,
            "messages": [{"role": m.role.value, "content": m.content} for m in prompt.messages],
            "candidates": {
                name: {
                    "response": given.texts[i],
                    "tokens": given.tokens[i],
                    "ended": given.ended[i],
                    "kl": None if given.kl is None else given.kl[i],
                    "scores": {judge: scores[i] for judge, scores in given.scores.items()},
                }
                for name, given in answers.items()
            },
        }
        for i, prompt in enumerate(prompts)
    ]

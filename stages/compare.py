"""Comparison: every candidate answers the same held-out prompts, judges score the answers, a report says who wins."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import Config, JudgeName
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import DataSource, Prompt, Split
from rlhf.errors import UserError
from rlhf.evaluation.answering.answers import (
    KL_FROM,
    Generated,
    answer,
    answer_few_shot,
    from_file,
    kl_from_reference,
    scored_sequences,
    usable_prompts,
)
from rlhf.evaluation.answering.cache import AnswerCache
from rlhf.evaluation.answering.candidates import Candidate, How, candidates_of, describe
from rlhf.evaluation.answering.outputs import Output, answered
from rlhf.evaluation.answering.samples import Samples, sample_many
from rlhf.evaluation.comparison import benchmark_tables, judge_tables, page
from rlhf.evaluation.comparison.answers import Answers
from rlhf.evaluation.comparison.curves import load_curves
from rlhf.evaluation.comparison.summary import metrics, summarise
from rlhf.evaluation.comparison.text import ordered, text_table
from rlhf.evaluation.judges.judge import GoldJudge, RewardModelJudge
from rlhf.evaluation.judges.llm import Judged, LLMJudge, annotation_rows, usage_line
from rlhf.evaluation.sweeps import claim_tables
from rlhf.evaluation.tasks import benchmarks, references
from rlhf.models.load import load_reward_model
from rlhf.runtime.distributed import from_main, is_main_process
from rlhf.runtime.files import write_json_atomic, write_text_atomic
from rlhf.runtime.jsonl import json_line, json_value
from rlhf.runtime.printable import printable
from rlhf.training.engine import pick_device

if TYPE_CHECKING:
    from rlhf.training.context import StageContext

log = logging.getLogger("rlhf")

UNITS = {JudgeName.gold: GoldJudge.unit, JudgeName.reward_model: RewardModelJudge.unit, JudgeName.llm: None}


def run(context: StageContext) -> dict[str, float]:
    """Writes report.json, responses.jsonl and report.html, prints the table, returns the manifest's numbers."""
    config, folder = context.config, context.folder.path
    candidates = candidates_of(context.parents, config)
    judges = judge_names(config, context.data, context.parents)
    llm = _llm_judge(config) if JudgeName.llm in judges else None
    prompts, outputs, lacking = prompts_for(candidates, judges, context)
    told = references.wanted_references(config.compare, context.data, prompts)

    # Beside the comparison's own folder, which another comparison moves aside.
    cache = AnswerCache(folder.parent / "answers")
    generated = _answer(candidates, prompts, outputs, context, cache)
    sft = candidates.get(KL_FROM)
    kl = kl_from_reference(sft.path if sft and sft.how == How.sample else None, generated, config, cache)
    own = {name: candidate.path for name, candidate in candidates.items() if candidate.how == How.sample}
    held_out = benchmarks.measure(own, benchmarks.benchmark_of(config.compare, context.data), config, cache, folder)
    if cache.found:
        log.info("%d of %d answers and likelihoods are from %s", cache.found, cache.found + cache.made, cache.folder)
    scores = {judge.value: _score(judge, generated, prompts, context) for judge in judges if judge != JudgeName.llm}
    texts = {name: given.texts for name, given in generated.items()}
    judged = from_main(lambda: llm.compare(prompts, texts, config.compare.baseline)) if llm is not None else None
    answers = {
        name: Answers(
            path=candidates[name].path,
            texts=given.texts,
            tokens=given.lengths,
            ended=given.ended,
            scores={judge: by_candidate[name] for judge, by_candidate in scores.items()},
            kl=kl[name],
            # Losses a token compare only where the tokens are the same, which is where there is a KL.
            text_loss=given.text_loss if kl[name] is not None or KL_FROM not in candidates else None,
            about={**describe(candidates[name]), **given.about},
            benchmarks=held_out[name].numbers if name in held_out else {},
            right=held_out[name].right if name in held_out else (),
            verdicts={} if judged is None else {JudgeName.llm.value: judged.verdicts[name]},
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
        lacking=lacking,
    )
    if told:
        references.add(
            report, {name: given.texts for name, given in answers.items()}, told, config.compare, config.seed
        )

    numbers = metrics(report)
    if judged is not None:
        report["llm_judge"] = judged.usage
    if is_main_process():
        if judged is not None:
            _write_verdicts(context, judged, prompts, texts)
        _write(context, report, response_rows(prompts, answers), candidates)
    return numbers


def prompts_for(
    candidates: Mapping[str, Candidate], judges: Sequence[JudgeName], context: StageContext
) -> tuple[list[Prompt], dict[str, dict[str, Output]], dict[str, int]]:
    """The prompts that all candidates answer, what files answer to them, and how many prompts each file lacks."""
    config, parents = context.config, context.parents
    prompts = context.data.prompts(Split.evaluation)
    if not len(prompts):
        raise UserError("There is no held-out prompt to compare on; raise data.evaluation_fraction, or give more rows.")
    outputs: dict[str, dict[str, Output]] = {}
    lacking: dict[str, int] = {}
    if config.compare.outputs:
        prompts, outputs, lacking = answered(config.compare.outputs, prompts)
    paths = [candidate.path for candidate in candidates.values() if candidate.how != How.outputs]
    if JudgeName.reward_model in judges or config.compare.best_of:
        paths.append(str(parents["reward_model"]))
    bad_rows = BadRows(config.data.on_bad_row, context.folder.path / "bad_rows.jsonl", append=True)
    return usable_prompts(paths, prompts[: config.compare.prompts], config, bad_rows), outputs, lacking


def _answer(
    candidates: Mapping[str, Candidate],
    prompts: Sequence[Prompt],
    outputs: Mapping[str, Mapping[str, Output]],
    context: StageContext,
    cache: AnswerCache,
) -> dict[str, Generated]:
    """Every candidate's answers."""
    config, data, parents = context.config, context.data, context.parents
    generated: dict[str, Generated] = {}
    samples: Samples | None = None
    for name, candidate in candidates.items():
        path, count = candidate.path, candidate.count
        if candidate.how == How.sample:
            generated[name] = answer(path, name, prompts, data, config, cache)
        elif candidate.how == How.few_shot:
            generated[name] = answer_few_shot(path, name, count, prompts, data, config, cache)
        elif candidate.how == How.outputs:
            generated[name] = from_file(outputs[name], prompts, counted_by(candidates, parents), config)
        else:
            if samples is None:
                most, judge = max(config.compare.best_of), str(parents["reward_model"])
                samples = sample_many(path, prompts, most, config, cache, reward_model=judge)
            generated[name] = samples.best_of(count)
    return generated


def counted_by(candidates: Mapping[str, Candidate], parents: Mapping[str, Path]) -> tuple[str, str] | None:
    """In whose tokens the length of a file's answers is given: the SFT model's, the reward model's, or no one's."""
    sft = candidates.get(KL_FROM)
    if sft is not None and sft.how == How.sample:
        return KL_FROM, sft.path
    return ("reward_model", str(parents["reward_model"])) if "reward_model" in parents else None


def _write(
    context: StageContext,
    report: dict[str, Any],
    responses: Sequence[Mapping[str, object]],
    candidates: Mapping[str, Candidate],
) -> None:
    config, folder = context.config, context.folder.path
    write_json_atomic(folder / "report.json", report)
    write_text_atomic(folder / "responses.jsonl", "".join(json_line(row) for row in responses))
    made = page.how_it_was_made(config, context.data.fingerprint(), folder, context.parents)
    curves = load_curves({name: candidate.path for name, candidate in candidates.items()}, context.parents)
    written = page.render(report, responses, curves, made, side_by_side=config.compare.side_by_side)
    write_text_atomic(folder / "report.html", written)

    context.tracker.rewind(-1)
    context.tracker.log(0, metrics(report))
    print(printable(f"\n{text_table(report)}\n\n{report['statement']}"))
    print(printable(benchmark_tables.text_table(report["candidates"], ordered(report))), end="")
    for line in (*claim_tables.lines(report["claims"]), *judge_tables.sentences(report), *report["remarks"]):
        print(printable(line))
    if "llm_judge" in report:
        print(usage_line(report["llm_judge"]))
    print(f"Report: {folder / 'report.html'}")


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


def _llm_judge(config: Config) -> LLMJudge:
    """judge.llm's. Raises UserError where it cannot be asked, before candidates answer."""
    judge = LLMJudge(config.judge.llm, seed=config.seed, bars=config.tracker.progress)
    from_main(judge.check)
    return judge


def _write_verdicts(
    context: StageContext, judged: Judged, prompts: Sequence[Prompt], texts: Mapping[str, Sequence[str]]
) -> None:
    config, folder = context.config, context.folder.path
    annotator = str(config.judge.llm.model)
    rows = annotation_rows(prompts, texts, judged.verdicts, baseline=config.compare.baseline, annotator=annotator)
    write_text_atomic(folder / "verdicts_llm.jsonl", "".join(json_line(row) for row in rows))
    write_text_atomic(folder / "judge_llm.jsonl", "".join(json_line(row) for row in judged.answers))


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
        sequences = [ids for given in generated.values() for ids in scored_sequences(given, prompts, path, config)]
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
                    "verdicts": {judge: json_value(said.wins[i]) for judge, said in given.verdicts.items()},
                }
                for name, given in answers.items()
            },
        }
        for i, prompt in enumerate(prompts)
    ]

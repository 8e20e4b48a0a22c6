from __future__ import annotations

import dataclasses
import json
import math
import pickle
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf.config import (
    CompareConfig,
    Config,
    DataConfig,
    JudgeConfig,
    JudgeName,
    LLMJudgeConfig,
    ModelConfig,
    OnBadRow,
    RolloutConfig,
    TextMetric,
    TrackerConfig,
)
from rlhf.data.records import Demonstration, Prompt
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.evaluation.published import verdicts as published_verdicts
from rlhf.evaluation.published.verdicts_summary import summarise as summarise_verdicts
from rlhf.models import load as loading
from rlhf.models.load import load_causal_lm, load_reward_model
from rlhf.models.save import save_model
from rlhf.models.scores import sequence_scores
from rlhf.models.tokenizers import load_tokenizer
from rlhf.runtime.jsonl import read_jsonl
from stages import compare as stage
from tests.support.fake_server import FakeServer, server, shown
from tests.support.fakes import ListSource, make_context, prompt
from tests.support.ranks import run_ranks
from tests.support.tiny import save_tiny_model

__all__ = ["server"]  # the fixture
PROMPTS = [
    dataclasses.replace(prompt(f"say {word} {i}", i), task=word) for i, word in enumerate(["one", "two", "three"] * 4)
]


@dataclasses.dataclass
class GoldSource(ListSource):
    """Likes long answers; a rubric that random models can tell apart."""

    judged: list[tuple[str, str]] = dataclasses.field(default_factory=list)

    @property
    def gold(self) -> Any:  # type: ignore[override]
        def score(asked: Prompt, text: str) -> float:
            self.judged.append((asked.id, text))
            return min(len(text) / 100, 1.0)

        return score

    @gold.setter
    def gold(self, value: None) -> None:
        pass


def source(gold: bool = True, prompts: list[Prompt] = PROMPTS) -> ListSource:
    return (GoldSource if gold else ListSource)(held_out_demonstrations=[Demonstration(p, "yes") for p in prompts])


def make_config(**settings: Any) -> Config:
    return Config(
        model=ModelConfig(path="unused"),
        compare=CompareConfig(bootstrap_samples=50, side_by_side=3, **settings),
        rollout=RolloutConfig(max_new_tokens=8),
        tracker=TrackerConfig(progress=False),
    )


def save_reward_model(folder: Path) -> str:
    base = save_tiny_model(folder.parent / "reward_base", chat_template=True, seed=9)
    model = load_reward_model(base, ModelConfig(path=base), fresh_head=True)
    torch.manual_seed(1)
    with torch.no_grad():
        model.score.weight.normal_()
    save_model(model, load_tokenizer(base), folder)
    return str(folder)


@pytest.fixture(scope="module")
def parents(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    root = tmp_path_factory.mktemp("run")
    paths = {
        name: save_tiny_model(root / name / "model", chat_template=True, seed=seed)
        for seed, name in enumerate(("base", "sft", "ppo"))
    }
    return {**paths, "reward_model": save_reward_model(root / "reward" / "model")}


def run(folder: Path, parents: dict[str, str], config: Config | None = None, data: ListSource | None = None) -> Any:
    context = make_context(folder, config or make_config(), parents, data or source())
    return stage.run(context), json.loads((folder / "report.json").read_text()), context


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory, parents: dict[str, str]) -> Any:
    folder = tmp_path_factory.mktemp("compare")
    metrics, report, context = run(folder, parents)
    return metrics, report, context, folder


def test_the_chain_is_compared_and_everything_is_written(whole: Any) -> None:
    metrics, report, context, folder = whole
    assert list(report["candidates"]) == ["base", "sft", "ppo"]
    assert (report["baseline"], report["judge"], report["prompts"]) == ("sft", "gold", 12)
    assert report["candidates"]["sft"]["win_rate_ci"] == [0.5, 0.5]
    assert report["candidates"]["sft"]["kl"] == 0.0
    assert report["candidates"]["ppo"]["kl"] != 0.0
    assert set(report["candidates"]["ppo"]["tasks"]) == {"one", "two", "three"}
    page = (folder / "report.html").read_text()
    assert report["statement"] in page
    for claim in report["claims"]:
        assert f"<td>{claim['question']}</td>" in page
    assert "Does PPO beat the SFT model?" in {claim["question"] for claim in report["claims"]}
    assert metrics["compare/ppo_win_rate"] == report["candidates"]["ppo"]["win_rate"]
    assert context.tracker.logged == [(0, metrics)]


def test_responses_hold_the_scores_that_the_report_averages(whole: Any) -> None:
    _, report, _, folder = whole
    rows = read_jsonl(folder / "responses.jsonl")
    assert [row["id"] for row in rows] == [p.id for p in PROMPTS]
    for name, candidate in report["candidates"].items():
        answers = [row["candidates"][name] for row in rows]
        for judge in ("gold", "reward_model"):
            mean = sum(answer["scores"][judge] for answer in answers) / 12
            assert candidate["judges"][judge]["score"] == pytest.approx(mean)
        assert candidate["gold_score"] == pytest.approx(sum(min(len(a["response"]) / 100, 1) for a in answers) / 12)
        assert candidate["mean_tokens"] == pytest.approx(sum(answer["tokens"] for answer in answers) / 12)
        assert candidate["kl"] == pytest.approx(sum(answer["kl"] for answer in answers) / 12)


def test_the_terminal_shows_the_table_and_where_the_report_is(
    tmp_path: Path, parents: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    _, report, _ = run(tmp_path, {"sft": parents["sft"], "ppo": parents["ppo"]}, make_config(prompts=3))
    shown = capsys.readouterr().out
    assert "candidate" in shown
    assert report["statement"] in shown
    assert str(tmp_path / "report.html") in shown


def test_a_candidate_with_the_same_weights_ties_everywhere_with_no_kl(tmp_path: Path, parents: dict[str, str]) -> None:
    twins = {"sft": parents["sft"], "candidates/twin": parents["sft"], "reward_model": parents["reward_model"]}
    _, report, _ = run(tmp_path, twins)
    twin = report["candidates"]["twin"]
    assert twin["win_rate_ci"] == [0.5, 0.5]
    assert twin["judges"]["reward_model"]["ties"] == 1.0
    assert twin["kl"] == pytest.approx(0.0, abs=1e-6)


def test_without_gold_the_reward_model_judges(tmp_path: Path, parents: dict[str, str]) -> None:
    _, report, _ = run(tmp_path, parents, data=source(gold=False))
    assert report["judge"] == "reward_model"
    assert report["candidates"]["ppo"]["gold_score"] is None


def test_another_tokenizer_has_no_kl_and_is_scored_by_its_text(tmp_path: Path, parents: dict[str, str]) -> None:
    other = save_tiny_model(tmp_path / "other", "gpt2", pad=True, bos=True, seed=5)
    chosen = {"sft": parents["sft"], "candidates/other": other, "reward_model": parents["reward_model"]}
    _, report, context = run(tmp_path / "compare", chosen)
    assert report["candidates"]["other"]["kl"] is None
    rows = read_jsonl(tmp_path / "compare" / "responses.jsonl")
    answer = rows[0]["candidates"]["other"]
    tokenizer = load_tokenizer(parents["reward_model"])
    template = ChatTemplate(tokenizer)
    sequence = template.prompt_ids(PROMPTS[0]) + template.response_ids(answer["response"], ended=answer["ended"])
    model = load_reward_model(parents["reward_model"], context.config.model)
    [expected] = sequence_scores(model, [sequence]).tolist()
    assert answer["scores"]["reward_model"] == pytest.approx(expected, abs=1e-5)


def test_the_temperature_of_the_comparison_is_its_own(tmp_path: Path, parents: dict[str, str]) -> None:
    chosen = {"sft": parents["sft"]}
    run(tmp_path / "warm", chosen)
    run(tmp_path / "cold", chosen, make_config(temperature=1e-5))
    run(tmp_path / "seeded", chosen, dataclasses.replace(make_config(temperature=1e-5), seed=7))
    warm, cold, seeded = (
        [row["candidates"]["sft"]["response"] for row in read_jsonl(tmp_path / name / "responses.jsonl")]
        for name in ("warm", "cold", "seeded")
    )
    assert warm != cold
    assert cold == seeded  # close to greedy: the seed does not matter


def test_the_number_of_prompts_is_honoured(tmp_path: Path, parents: dict[str, str]) -> None:
    _, report, _ = run(tmp_path, {"sft": parents["sft"]}, make_config(prompts=5))
    assert report["prompts"] == 5


def test_a_judge_that_is_not_there_is_refused_with_what_to_do(tmp_path: Path, parents: dict[str, str]) -> None:
    config = dataclasses.replace(make_config(), judge=JudgeConfig(names=[JudgeName.reward_model]))
    with pytest.raises(UserError, match="stage=reward"):
        stage.judge_names(config, source(), {})
    with pytest.raises(UserError, match="no judge"):
        stage.judge_names(make_config(), source(gold=False), {})


def test_the_tie_margin_makes_close_answers_ties(tmp_path: Path, parents: dict[str, str]) -> None:
    config = dataclasses.replace(make_config(), judge=JudgeConfig(tie_margin=2.0))
    _, report, _ = run(tmp_path, {"sft": parents["sft"], "ppo": parents["ppo"]}, config)
    assert report["candidates"]["ppo"]["win_rate_ci"] == [0.5, 0.5]


def test_a_prompt_too_long_for_a_candidate_is_refused_or_skipped_for_all(
    tmp_path: Path, parents: dict[str, str]
) -> None:
    data = source(prompts=[*PROMPTS[:3], prompt("one two three " * 200, 99)])
    chosen = {"sft": parents["sft"]}
    with pytest.raises(UserError, match="test:99"):
        run(tmp_path / "refused", chosen, data=data)
    config = dataclasses.replace(make_config(), data=DataConfig(on_bad_row=OnBadRow.skip))
    _, report, _ = run(tmp_path / "skipped", chosen, config, data)
    assert report["prompts"] == 3
    assert len(read_jsonl(tmp_path / "skipped" / "bad_rows.jsonl")) == 1


def write_benchmark(folder: Path) -> str:
    rows = [
        {"context": f"say {i}", "options": [" one", " two", " three"], "answer": i % 3, "task": "t"} for i in range(9)
    ]
    path = folder / "questions.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return str(path)


def test_a_benchmark_is_measured_once_a_model_and_its_items_are_written(
    tmp_path: Path, parents: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    measured = []
    measure = stage.benchmarks._measure
    monkeypatch.setattr(
        stage.benchmarks, "_measure", lambda model, *rest: measured.append(model.path) or measure(model, *rest)
    )
    chosen = {"sft": parents["sft"], "ppo": parents["ppo"], "candidates/twin": parents["sft"]}
    config = make_config(prompts=3, benchmark=write_benchmark(tmp_path), benchmark_items=8)
    metrics, report, _ = run(tmp_path / "compare", chosen, config)
    assert measured == [parents["sft"], parents["ppo"]]
    found = {name: candidate["benchmarks"]["questions"] for name, candidate in report["candidates"].items()}
    assert found["twin"] == found["sft"]
    rows = read_jsonl(tmp_path / "compare" / "benchmark.jsonl")
    assert len(rows) == 8
    for name, numbers in found.items():
        right = [max(range(3), key=row["logprobs"][name].__getitem__) == row["answer"] for row in rows]
        assert numbers["accuracy"] == metrics[f"compare/{name}_benchmark_accuracy"] == sum(right) / 8
        assert numbers["tasks"]["t"]["n"] == 8
    assert "<h2>Benchmarks</h2>" in (tmp_path / "compare" / "report.html").read_text()


def test_without_a_benchmark_no_model_is_loaded_for_one(
    tmp_path: Path, parents: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage.benchmarks, "_measure", lambda *_: pytest.fail("it was measured"))
    _, report, _ = run(tmp_path / "compare", {"sft": parents["sft"]}, make_config(prompts=3))
    assert report["candidates"]["sft"]["benchmarks"] == {}
    assert not (tmp_path / "compare" / "benchmark.jsonl").exists()


def answers(folder: Path, name: str, key: str = "response") -> list[Any]:
    return [row["candidates"][name][key] for row in read_jsonl(folder / "responses.jsonl")]


@pytest.fixture(scope="module")
def every_kind(tmp_path_factory: pytest.TempPathFactory, parents: dict[str, str]) -> Path:
    folder = tmp_path_factory.mktemp("kinds") / "compare"
    shots = [Demonstration(prompt(f"count {i}", i), f"{i} it is") for i in range(5)]
    data = dataclasses.replace(source(), train_demonstrations=shots)
    theirs = write_outputs(folder.parent / "theirs.jsonl", [(asked, "one two three") for asked in PROMPTS[2:]])
    run(folder, parents, make_config(few_shot=2, best_of=[4, 2], outputs={"theirs": theirs}), data)
    return folder


def write_outputs(path: Path, given: list[tuple[Prompt, str]]) -> str:
    path.write_text("\n".join(json.dumps({"prompt": p.messages[0].content, "response": text}) for p, text in given))
    return str(path)


def test_every_kind_of_candidate_is_compared_and_says_what_it_is(every_kind: Path) -> None:
    report = json.loads((every_kind / "report.json").read_text())
    candidates = report["candidates"]
    assert {name: candidate["method"] for name, candidate in candidates.items()} == {
        "base": "base",
        "base-few-shot": "base-few-shot",
        "sft": "sft",
        "sft-best-of-2": "best-of-n",
        "sft-best-of-4": "best-of-n",
        "ppo": "ppo",
        "theirs": "outputs",
    }
    assert candidates["base-few-shot"]["shots"] == 2
    assert candidates["theirs"]["length_in"] == "tokens of sft"
    assert candidates["sft-best-of-4"]["parameters"] == candidates["sft"]["parameters"] > 0
    assert candidates["sft-best-of-4"]["kl"] == pytest.approx(math.log(4) - 3 / 4)
    assert candidates["base-few-shot"]["kl"] is candidates["theirs"]["kl"] is None
    page = (every_kind / "report.html").read_text()
    assert all(name in page for name in candidates)


def test_the_reward_model_prefers_the_best_of_more_samples_on_every_prompt(every_kind: Path) -> None:
    one, two, four = (
        [scores["reward_model"] for scores in answers(every_kind, name, "scores")]
        for name in ("sft", "sft-best-of-2", "sft-best-of-4")
    )
    assert all(b >= a - 1e-5 for a, b in zip(one, two, strict=True))
    assert all(b >= a - 1e-5 for a, b in zip(two, four, strict=True))
    assert sum(four) > sum(two) > sum(one)


def test_prompts_that_a_file_lacks_are_left_out_for_all_and_the_report_says_so(every_kind: Path) -> None:
    report = json.loads((every_kind / "report.json").read_text())
    assert (report["prompts"], report["prompts_lacking"]) == (10, {"theirs": 2})
    assert "2 held-out prompts are left out for all: the file of theirs has no answer to them." in report["remarks"]
    assert not any("another tokenizer" in remark for remark in report["remarks"])
    assert answers(every_kind, "theirs") == ["one two three"] * 10


def test_another_comparison_answers_alike_and_loads_only_what_is_new(
    every_kind: Path, parents: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = {name: answers(every_kind, name) for name in ("base", "sft", "ppo", "sft-best-of-2")}
    shutil.copytree(every_kind.parent / "answers", tmp_path / "answers")
    loaded: list[str] = []
    load = load_causal_lm

    def watched(path: str, *rest: Any, **named: Any) -> Any:
        loaded.append(path)
        return load(path, *rest, **named)

    monkeypatch.setattr(loading, "load_causal_lm", watched)
    theirs = str(every_kind.parent / "theirs.jsonl")
    config = dataclasses.replace(
        make_config(best_of=[2], outputs={"theirs": theirs}), judge=JudgeConfig(tie_margin=0.5)
    )
    run(tmp_path / "compare", parents, config)
    assert loaded == []
    assert {name: answers(tmp_path / "compare", name) for name in before} == before
    named = {**parents, "candidates/twin": parents["ppo"], "candidates/new": save_tiny_model(tmp_path / "new", seed=7)}
    run(tmp_path / "compare", named, config)
    assert loaded == [named["candidates/new"], parents["sft"]]  # which its KL is measured from


def test_files_alone_need_no_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parents: dict[str, str]) -> None:
    a, b = (write_outputs(tmp_path / f"{n}.jsonl", [(p, n * (i + 2)) for i, p in enumerate(PROMPTS)]) for n in "ab")
    monkeypatch.setattr(loading, "load_causal_lm", None)
    config = make_config(baseline="a", outputs={"a": a, "b": b})
    _, report, _ = run(tmp_path / "gold", {}, config)
    assert report["candidates"]["b"]["win_rate"] == 0.5  # as long as a's, which is all that this rubric looks at
    assert report["candidates"]["b"]["length_in"] == "words"
    _, report, _ = run(tmp_path / "judged", {"reward_model": parents["reward_model"]}, config, source(gold=False))
    assert report["judge"] == "reward_model"
    assert report["candidates"]["b"]["length_in"] == "tokens of reward_model"
    scores = {name: answers(tmp_path / "judged", name, "scores") for name in "ab"}
    wins = [b["reward_model"] > a["reward_model"] for a, b in zip(scores["a"], scores["b"], strict=True)]
    assert report["candidates"]["b"]["win_rate"] == sum(wins) / 12


def by_llm(server: FakeServer, cache: Path, *names: JudgeName, **settings: Any) -> Config:
    llm = LLMJudgeConfig(url=server.url, model="m", cache=str(cache), retries=0, **settings)
    return dataclasses.replace(make_config(), judge=JudgeConfig(names=[*names, JudgeName.llm], llm=llm))


def judges_as_gold(server: FakeServer, body: dict[str, Any], times: int) -> tuple[int, Any]:
    """GoldSource's rubric, from what the judge is shown."""
    a, b = (min(len(text) / 100, 1.0) for text in shown(body))
    said = "Verdict: tie" if a == b else f"Verdict: {'A' if a > b else 'B'}"
    return 200, server.completion(body, said, usage=(100, 5))


def test_an_llm_that_judges_by_gold_gives_golds_win_rates(
    tmp_path: Path, parents: dict[str, str], server: FakeServer, capsys: pytest.CaptureFixture[str]
) -> None:
    server.answer = judges_as_gold
    chosen = {name: parents[name] for name in ("base", "sft", "ppo")}
    config = by_llm(server, tmp_path / "cache", JudgeName.gold, input_price=2.0, output_price=4.0)
    metrics, report, _ = run(tmp_path / "compare", chosen, config)
    assert report["judge"] == "gold"
    for candidate in report["candidates"].values():
        gold, llm = candidate["judges"]["gold"], candidate["judges"]["llm"]
        for key in ("win_rate", "win_rate_ci", "ties"):
            assert llm[key] == pytest.approx(gold[key])
        assert (llm["n"], llm["inconsistent"], llm["parse_failures"], llm["score"]) == (12, 0, 0, None)
    assert metrics["compare/ppo_win_rate"] == report["candidates"]["ppo"]["win_rate"]

    took = report["llm_judge"]
    assert (took["model"], took["url"], took["cached"], took["parse_failures"]) == ("m", server.url, 0, 0)
    assert took["requests"] == len(server.asked) > 0
    assert took["cost"] == pytest.approx(took["requests"] * (100 * 2 + 5 * 4) / 1e6)
    assert f"LLM judge m at {server.url}: {took['requests']} requests" in capsys.readouterr().out
    assert "<h2>The LLM judge</h2>" in (tmp_path / "compare" / "report.html").read_text()

    rows = read_jsonl(tmp_path / "compare" / "verdicts_llm.jsonl")
    assert [row["generator_2"] for row in rows] == ["base"] * 12 + ["ppo"] * 12
    (tmp_path / "ppo.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows[12:]))
    read = published_verdicts.read(str(tmp_path / "ppo.jsonl"))
    told = summarise_verdicts(read, bootstrap_samples=50, seed=0)
    assert told["win_rate"] == pytest.approx(100 * report["candidates"]["ppo"]["win_rate"])
    asked = read_jsonl(tmp_path / "compare" / "judge_llm.jsonl")
    identical = sum(candidate["judges"]["llm"]["identical"] for candidate in report["candidates"].values()) - 12
    assert len(asked) == 2 * (24 - identical)
    responses = read_jsonl(tmp_path / "compare" / "responses.jsonl")
    wins = [row["candidates"]["ppo"]["verdicts"]["llm"] for row in responses]
    assert sum(wins) / 12 == pytest.approx(report["candidates"]["ppo"]["win_rate"])


def test_an_llm_alone_decides_and_what_it_leaves_open_is_null(
    tmp_path: Path, parents: dict[str, str], server: FakeServer
) -> None:
    server.answer = lambda server, body, times: (200, server.completion(body, "Both are fine, I think."))
    config = by_llm(server, tmp_path / "cache")
    metrics, report, _ = run(tmp_path / "compare", {"sft": parents["sft"], "ppo": parents["ppo"]}, config)
    ppo = report["candidates"]["ppo"]
    assert report["judge"] == "llm"
    assert ppo["judges"]["llm"]["parse_failures"] == report["llm_judge"]["parse_failures"] == len(server.asked)
    assert ppo["judges"]["llm"]["n"] == ppo["judges"]["llm"]["identical"] < 12
    assert ppo["win_rate"] in (None, 0.5)  # 0.5 where two random models happened to say the same
    assert all(math.isfinite(value) for value in metrics.values())
    preferences = [row["preference"] for row in read_jsonl(tmp_path / "compare" / "verdicts_llm.jsonl")]
    assert set(preferences) <= {None, 1.5}
    assert (tmp_path / "compare" / "report.html").exists()


def test_a_judge_that_nobody_serves_is_refused_before_candidates_answer(
    tmp_path: Path, parents: dict[str, str], server: FakeServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stage, "answer", lambda *_: pytest.fail("a model was loaded"))
    server.url = "http://127.0.0.1:9/v1"
    with pytest.raises(UserError, match=r"127\.0\.0\.1:9/v1 does not answer"):
        run(tmp_path / "compare", {"sft": parents["sft"]}, by_llm(server, tmp_path / "cache"))


def test_an_llm_is_asked_only_where_it_is_named(parents: dict[str, str]) -> None:
    folders = {name: Path(path) for name, path in parents.items()}
    assert stage.judge_names(make_config(), source(), folders) == [JudgeName.gold, JudgeName.reward_model]


@pytest.mark.slow
def test_of_several_processes_one_asks_and_all_know(
    tmp_path: Path, parents: dict[str, str], server: FakeServer
) -> None:
    server.answer = judges_as_gold
    chosen = {"sft": parents["sft"], "ppo": parents["ppo"]}
    config = by_llm(server, tmp_path / "cache", JudgeName.gold)
    context = make_context(tmp_path / "compare", config, chosen, source())
    (tmp_path / "arguments").write_bytes(pickle.dumps(("compare", context, None)))
    run_ranks(2, "tests.support.stage_rank", str(tmp_path / "arguments"))
    report = json.loads((tmp_path / "compare" / "report.json").read_text())
    assert report["llm_judge"]["requests"] == len(server.asked)
    assert len({json.dumps(body) for _, body, _ in server.asked}) == len(server.asked)
    ppo = report["candidates"]["ppo"]["judges"]
    assert ppo["llm"]["win_rate"] == pytest.approx(ppo["gold"]["win_rate"])


def test_answers_are_measured_against_demonstrations_where_asked_for(tmp_path: Path, parents: dict[str, str]) -> None:
    numbers, report, _ = run(tmp_path, parents, make_config(metrics=[TextMetric.rouge]))
    found = report["candidates"]["ppo"]["metrics"]
    assert set(found) == {"rougeL", "rouge1", "rouge2"}
    assert found["rougeL"]["n"] == 12
    assert numbers["compare/ppo_rougeL"] == found["rougeL"]["value"]
    nothing = ListSource(held_out_demonstrations=[])
    nothing.prompts = lambda split: PROMPTS  # type: ignore[method-assign]
    with pytest.raises(UserError, match=r"compare\.metrics needs references"):
        run(tmp_path / "none", parents, make_config(metrics=[TextMetric.rouge]), nothing)

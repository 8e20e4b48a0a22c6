from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from rlhf import models
from rlhf.config import (
    CompareConfig,
    Config,
    DataConfig,
    JudgeConfig,
    JudgeName,
    ModelConfig,
    OnBadRow,
    RolloutConfig,
    TextMetric,
    TrackerConfig,
)
from rlhf.data.records import Demonstration, Prompt
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.tracking import read_jsonl
from stages import compare as stage
from tests.fakes import ListSource, make_context, prompt
from tests.tiny import save_tiny_model

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
    model = models.load_reward_model(base, ModelConfig(path=base))
    torch.manual_seed(1)
    with torch.no_grad():
        model.score.weight.normal_()
    models.save_model(model, models.load_tokenizer(base), folder)
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
    assert report["statement"] in (folder / "report.html").read_text()
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
    tokenizer = models.load_tokenizer(parents["reward_model"])
    template = ChatTemplate(tokenizer)
    sequence = template.prompt_ids(PROMPTS[0]) + template.response_ids(answer["response"], ended=answer["ended"])
    model = models.load_reward_model(parents["reward_model"], context.config.model)
    [expected] = models.sequence_scores(model, [sequence]).tolist()
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


def test_a_baseline_that_is_no_candidate_is_refused_with_the_names(parents: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"compare\.baseline=best .* base, sft, ppo"):
        stage.candidate_paths({k: Path(v) for k, v in parents.items()}, make_config(baseline="best"))


def test_a_further_candidate_may_not_take_a_name_of_the_chain(parents: dict[str, str]) -> None:
    with pytest.raises(UserError, match="names ppo"):
        stage.candidate_paths(
            {k: Path(v) for k, v in parents.items()}, make_config(candidates={"ppo": parents["base"]})
        )


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

"""The chain as data: which folder, which parents, and when a stage is skipped, resumed or refused."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import importlib.util
import itertools
import json
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain import runner
from rlhf.chain.place import reaching
from rlhf.cli import compose, main, sweep
from rlhf.cli.compose import Job
from rlhf.config import (
    CHAIN,
    Advantage,
    Config,
    Device,
    Float32Matmul,
    JudgeConfig,
    JudgeName,
    LaunchConfig,
    LLMJudgeConfig,
    LoraConfig,
    PPOConfig,
    Quantization,
    RolloutConfig,
    SelfInstructServerConfig,
    StageName,
)
from rlhf.errors import UserError
from rlhf.training.torch_settings import prepare_torch, seed_everything
from tests.support.fake_stages import World, world

__all__ = ["world"]  # the fixture


def test_chain_runs_in_order_and_hands_models_on(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(world.config())
    contexts = list(world.calls)
    assert world.ran() == ["demo/sft", "demo/reward", "demo/ppo", "demo/compare"]
    sft, reward, ppo, compare = (context.parents for context in contexts)
    models = {stage: world.folder(f"demo/{stage}").model_dir for stage in ("sft", "reward", "ppo")}
    assert sft == {"base": world.base}
    assert reward == {"policy": models["sft"]}
    assert ppo == {"policy": models["sft"], "reward_model": models["reward"], "value_model": models["reward"]}
    assert compare == {"base": world.base, "sft": models["sft"], "ppo": models["ppo"], "reward_model": models["reward"]}
    assert not any(context.resume for context in contexts)
    said = capsys.readouterr().out
    assert said.startswith("The whole chain: sft, reward, ppo, compare.\nIt goes to ")
    assert "Ctrl-C is safe" in said
    assert "sft: starts in " in said
    assert "ppo: done in " in said
    assert "Everything is in" in said


def test_without_a_value_model_no_such_parent_is_looked_for(world: World) -> None:
    config = world.config()
    config.ppo = PPOConfig(advantage=Advantage.rloo, samples_per_prompt=2)
    runner.run(config)
    assert set(world.calls[2].parents) == {"policy", "reward_model"}


def test_manifest_says_what_was_made_from_what(world: World) -> None:
    runner.run(world.config("sft", seed=3))
    folder = world.folder("demo/sft")
    manifest = folder.manifest or {}
    assert manifest["stage"] == "sft"
    assert manifest["status"] == "complete"
    assert manifest["seed"] == 3
    assert manifest["parents"]["base"]["path"] == str(world.base)
    assert len(manifest["parents"]["base"]["hash"]) == 64
    assert manifest["data"] == {"rows": 10}
    assert manifest["metrics"]["eval/loss"] == 0.5
    assert manifest["tokenizer_hash"] == "t"
    assert manifest["code"]["version"]
    assert manifest["packages"]["torch"]
    assert manifest["hardware"]["cores"] > 0
    assert manifest["wall_s"] >= 0
    assert manifest["started"] <= manifest["finished"]
    assert "seed: 3" in folder.config_path.read_text()
    assert manifest["config"]["sft.epochs"] == 2
    assert "sft: starts in" in folder.log_path.read_text()
    assert "eval/loss 0.5" in folder.log_path.read_text()
    assert json.loads(folder.metrics_path.read_text())["train/loss"] == 1.0


def test_finished_chain_is_skipped(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(world.config())
    world.ran()
    capsys.readouterr()
    runner.run(world.config())
    assert world.ran() == []
    assert capsys.readouterr().out.count("finished already") == 4


@pytest.mark.parametrize("error", [RuntimeError("boom"), KeyboardInterrupt()])
def test_interrupted_stage_resumes(world: World, error: BaseException) -> None:
    world.fail["sft"] = error
    with pytest.raises(type(error)):
        runner.run(world.config("sft"))
    manifest = world.folder("demo/sft").manifest or {}
    assert manifest["status"] == "failed"
    world.fail.clear()
    world.ran()
    runner.run(world.config("sft"))
    assert [context.resume for context in world.calls] == [True]
    assert world.folder("demo/sft").complete
    assert (world.folder("demo/sft").manifest or {})["error"] is None


def test_crash_leaves_its_traceback_in_the_log_and_says_where(world: World) -> None:
    world.fail["sft"] = RuntimeError("boom")
    with pytest.raises(RuntimeError) as caught:
        runner.run(world.config("sft"))
    log = world.folder("demo/sft").log_path
    assert "RuntimeError: boom" in log.read_text()
    assert "Traceback" in log.read_text()
    assert str(log) in "".join(caught.value.__notes__)


def test_other_config_in_a_finished_folder_is_refused_with_the_difference(world: World) -> None:
    runner.run(world.config("sft"))
    world.ran()
    before = world.folder("demo/sft").manifest
    with pytest.raises(UserError, match=r"sft\.epochs 2 -> 5.*run\.name=.*run\.parents=.*runs/demo"):
        runner.run(world.config("sft", sft={"epochs": 5}))
    with pytest.raises(UserError, match=r"seed 0 -> 1"):
        runner.check(world.config("sft", seed=1))
    assert world.ran() == []
    assert world.folder("demo/sft").manifest == before


def test_changed_data_and_changed_parents_are_refused(world: World) -> None:
    runner.run(world.config())
    world.rows = 11
    with pytest.raises(UserError, match="other data"):
        runner.run(world.config("sft"))
    world.rows = 10
    world.save(world.base, "another base")
    with pytest.raises(UserError, match="another base model"):
        runner.run(world.config("sft"))


def test_keys_of_speed_memory_and_tracking_do_not_count(world: World) -> None:
    runner.run(world.config("sft"))
    world.ran()
    runner.run(
        world.config("sft", sft={"micro_batch_size_per_device": 8}, tracker={"progress": False}, ppo={"epochs": 1})
    )
    assert world.ran() == []


def test_unfinished_folder_of_another_config_is_kept_aside_or_refused(world: World) -> None:
    world.fail["sft"] = RuntimeError("boom")
    with pytest.raises(RuntimeError):
        runner.run(world.config("sft"))
    world.fail.clear()
    runner.run(world.config("sft", seed=1))  # nothing was lost: no checkpoint yet
    assert (world.folder("demo/sft-1").manifest or {})["status"] == "failed"
    folder = world.folder("demo/sft")
    folder.write_manifest(status="failed")
    with folder.checkpoint(5, keep=2):
        pass
    with pytest.raises(UserError, match="belongs to another config"):
        runner.run(world.config("sft", seed=2))


def test_a_comparison_is_made_anew_when_the_file_of_its_benchmark_changes(world: World, tmp_path: Path) -> None:
    row = {"context": "A cow says", "options": [" moo.", " baa."], "answer": 0}
    config = world.config(compare={"benchmark": str(tmp_path / "questions.jsonl")})
    for answer, runs in ((0, ["demo/sft", "demo/reward", "demo/ppo", "demo/compare"]), (0, []), (1, ["demo/compare"])):
        (tmp_path / "questions.jsonl").write_text(json.dumps({**row, "answer": answer}))
        runner.run(config)
        assert world.ran() == runs
    (tmp_path / "questions.jsonl").write_text(json.dumps({**row, "answer": 2}))
    with pytest.raises(UserError, match=r"questions\.jsonl, row 1: its `answer`"):
        runner.check(
            world.config(seed=1, run={"name": "new"}, compare={"benchmark": str(tmp_path / "questions.jsonl")})
        )
    assert world.ran() == []


def test_comparison_is_made_anew_and_the_old_one_kept(world: World) -> None:
    runner.run(world.config())
    world.ran()
    runner.run(world.config("compare", compare={"prompts": 7}))
    assert world.ran() == ["demo/compare"]
    assert "prompts: 400" in world.folder("demo/compare-1").config_path.read_text()
    assert "prompts: 7" in world.folder("demo/compare").config_path.read_text()
    assert "compare: done" in world.folder("demo/compare").log_path.read_text()
    runner.run(world.config("compare", compare={"prompts": 8}))
    assert world.folder("demo/compare-2").complete


def test_missing_parent_names_the_command_that_makes_it(world: World) -> None:
    with pytest.raises(
        UserError, match=r"`python -m rlhf stage=sft run\.root=.* run\.name=demo model\.path=.*`.*reward\.policy="
    ):
        runner.run(world.config("reward"))
    runner.run(world.config("sft"))
    with pytest.raises(UserError, match=r"stage=reward .*ppo\.reward_model="):
        runner.run(world.config("ppo"))
    with pytest.raises(UserError, match="stage=sft"):
        runner.run(world.config("compare", name="empty"))
    assert not world.folder("empty").path.exists()


def test_parents_may_be_named(world: World) -> None:
    mine, theirs = world.save(world.root / "mine", "mine"), world.save(world.root / "theirs", "theirs")
    runner.run(world.config("ppo", ppo={"policy": str(mine), "reward_model": str(theirs)}))
    assert world.calls[0].parents == {"policy": mine, "reward_model": theirs, "value_model": theirs}
    (theirs / "model.safetensors").unlink()
    with pytest.raises(UserError, match="no weights"):
        runner.run(world.config("ppo", ppo={"policy": str(mine), "reward_model": str(theirs)}))


def test_parents_are_found_in_another_run(world: World) -> None:
    runner.run(world.config())
    world.ran()
    runner.run(world.config("ppo", name="second", parents=str(world.root / "runs" / "demo"), seed=5))
    assert world.calls[0].parents["policy"] == world.folder("demo/sft").model_dir
    assert world.ran() == ["second/ppo"]


def test_sft_starts_from_the_runs_own_pretraining(world: World) -> None:
    runner.run(world.config("pretrain"))
    runner.run(world.config("sft"))
    assert world.calls[-1].parents == {"base": world.folder("demo/pretrain").model_dir}
    runner.run(world.config("sft", name="other", sft={"base": str(world.base)}))
    assert world.calls[-1].parents == {"base": world.base}


def test_comparison_judges_with_the_reward_model_that_is_named(world: World) -> None:
    judge = world.save(world.root / "judge", "judge")
    runner.run(world.config("sft"))
    runner.run(world.config("compare", judge={"reward_model": str(judge), "names": [JudgeName.reward_model]}))
    assert world.calls[-1].parents["reward_model"] == judge
    with pytest.raises(UserError, match=r"judge\.reward_model"):
        runner.run(world.config("compare", judge={"reward_model": "./nowhere"}))
    with pytest.raises(UserError, match=r"stage=reward.*judge\.reward_model=PATH_OR_HUB_ID"):
        runner.run(world.config("compare", judge={"names": [JudgeName.reward_model]}))


def test_a_comparison_by_an_llm_is_another_one_with_another_model_or_other_words(world: World, tmp_path: Path) -> None:
    words = tmp_path / "words.txt"
    words.write_text("{prompt} {response_a} {response_b} Verdict: A")

    def compared(**settings: Any) -> list[str]:
        given = {"url": "http://localhost:1/v1", "model": "m", "prompt": str(words), **settings}
        runner.run(world.config("compare", judge=JudgeConfig(names=[JudgeName.llm], llm=LLMJudgeConfig(**given))))
        return world.ran()

    runner.run(world.config("sft"))
    world.ran()
    assert compared() == ["demo/compare"]
    copy = tmp_path / "copy.txt"
    copy.write_text(words.read_text())
    same: list[dict[str, Any]] = [
        {"url": "http://other:2/v1"},
        {"prompt": str(copy)},
        {"parallel": 1, "requests_per_minute": 9.0, "timeout_s": 1.0, "retries": 0},
        {"input_price": 1.0, "output_price": 2.0, "cache": str(tmp_path)},
    ]
    for settings in same:
        assert compared(**settings) == []
    for settings in ({"model": "n"}, {"temperature": 1.0}, {"max_tokens": 9}, {"chat": False}, {"prompt": None}):
        assert compared(**settings) == ["demo/compare"]
    assert compared() == ["demo/compare"]
    words.write_text("{prompt} {response_b} {response_a} Verdict: A")
    assert compared() == ["demo/compare"]
    assert compared() == []


def test_words_that_no_judge_can_be_asked_with_are_refused_before_the_first_stage(world: World) -> None:
    llm = LLMJudgeConfig(url="http://localhost:1/v1", model="m", prompt="nowhere.txt")
    config = world.config("all", judge=JudgeConfig(names=[JudgeName.llm], llm=llm))
    for refused in (lambda: runner.run(config), lambda: runner.check(config, parents=False)):
        with pytest.raises(UserError, match=r"judge\.llm\.prompt=nowhere\.txt cannot be read"):
            refused()
    assert world.ran() == []


def test_comparison_takes_what_there_is_and_what_is_named(world: World) -> None:
    mine = world.save(world.root / "mine", "mine")
    runner.run(world.config("sft"))
    world.ran()
    runner.run(world.config("compare", compare={"candidates": {"mine": str(mine)}}))
    assert set(world.calls[0].parents) == {"base", "sft", "candidates/mine"}
    with pytest.raises(UserError, match=r"compare\.baseline=yours is none of the candidates, which are base, sft"):
        runner.run(world.config("compare", compare={"baseline": "yours"}))
    with pytest.raises(UserError, match="stage=reward"):
        runner.run(dataclasses.replace(world.config("compare"), judge=JudgeConfig(names=[JudgeName.reward_model])))


def outputs_file(world: World, name: str, text: str = "x") -> str:
    path = world.root / name
    path.write_text(f'{{"prompt": "p", "response": "{text}"}}\n')
    return str(path)


def test_files_of_outputs_are_compared_without_any_model(world: World) -> None:
    outputs = {name: outputs_file(world, f"{name}.jsonl") for name in "ab"}
    runner.run(world.config("compare", compare={"baseline": "a", "outputs": outputs}))
    assert world.calls[0].parents == {}
    runner.run(world.config("compare", name="with-base", compare={"baseline": "base", "outputs": outputs}))
    assert world.calls[1].parents == {"base": world.base}
    with pytest.raises(UserError, match=r"stage=sft.*compare\.candidates\.sft=PATH"):
        runner.run(world.config("compare", name="other", compare={"outputs": outputs}))


def test_another_file_of_outputs_makes_the_comparison_again(world: World) -> None:
    config = world.config("compare", compare={"baseline": "a", "outputs": {"a": outputs_file(world, "a.jsonl")}})
    runner.run(config)
    runner.run(config)
    assert world.ran() == ["demo/compare"]
    outputs_file(world, "a.jsonl", "y")
    runner.run(config)
    assert world.ran() == ["demo/compare"]
    moved = world.config("compare", compare={"baseline": "a", "outputs": {"a": outputs_file(world, "b.jsonl", "y")}})
    runner.run(moved)
    assert world.ran() == []


def test_a_missing_file_of_outputs_is_refused_before_anything_trains(world: World) -> None:
    with pytest.raises(UserError, match=r"no file nowhere\.jsonl; set compare\.outputs\.a"):
        runner.run(world.config(compare={"outputs": {"a": "nowhere.jsonl"}}))
    assert world.ran() == []


@pytest.mark.parametrize("changed", [{"few_shot": 2}, {"best_of": [4]}])
def test_shots_and_samples_are_inputs_of_a_comparison(world: World, changed: dict[str, Any]) -> None:
    runner.run(world.config())
    world.ran()
    runner.run(world.config("compare", compare=changed))
    assert world.ran() == ["demo/compare"]


def test_the_best_of_several_needs_a_reward_model_and_an_sft_model(world: World) -> None:
    with pytest.raises(UserError, match="stage=sft"):
        runner.run(world.config("compare", compare={"best_of": [4], "baseline": "base"}))
    runner.run(world.config("sft"))
    with pytest.raises(UserError, match=r"stage=reward.*judge\.reward_model=PATH"):
        runner.run(world.config("compare", compare={"best_of": [4]}))


def test_reward_model_with_another_tokenizer_or_template_is_refused(world: World) -> None:
    runner.run(world.config("sft"))
    runner.run(world.config("reward"))
    reward = world.folder("demo/reward")
    reward.write_manifest(template_hash="other")
    with pytest.raises(UserError, match=r"ppo\.reward_model .*/reward/model was trained with another chat template"):
        runner.run(world.config("ppo"))
    reward.write_manifest(template_hash="auto", tokenizer_hash=None)
    world.tokenizers[str(reward.model_dir)] = "other"
    with pytest.raises(UserError, match="another tokenizer"):
        runner.run(world.config("ppo"))
    world.tokenizers.clear()
    runner.run(world.config("ppo"))
    assert world.folder("demo/ppo").complete


def test_policy_that_was_trained_on_another_layout_is_refused(world: World) -> None:
    for stage in ("sft", "reward"):
        runner.run(world.config(stage))
    sft = world.folder("demo/sft")
    trained_on = sft.manifest["template_hash"]
    sft.write_manifest(template_hash="other", config={**sft.manifest["config"], "data.template": "chatml"})
    for stage, name in (("reward", "reward.policy"), ("ppo", "ppo.policy"), ("compare", "sft")):
        with pytest.raises(UserError, match=rf"^{name} .*another chat template than data\.template=auto.*=chatml, as"):
            runner.run(world.config(stage, name="other", parents=str(world.root / "runs" / "demo")))
    sft.write_manifest(template_hash=trained_on)
    reward = world.folder("demo/reward")
    reward.write_manifest(template_hash="other")
    with pytest.raises(UserError, match=r"^judge\.reward_model .*another chat template than data\.template=auto"):
        runner.run(world.config("compare", name="third", parents=str(world.root / "runs" / "demo")))
    reward.write_manifest(template_hash=trained_on)
    runner.run(world.config("ppo"))
    assert world.folder("demo/ppo").complete


def test_self_instruct_starts_from_a_model_or_a_server_and_from_nothing_of_the_chain(world: World) -> None:
    runner.run(world.config("self_instruct"))
    (call,) = world.calls
    assert call.parents == {"model": world.base}
    assert set(call.folder.manifest["data"]) == {"seeds_sha256"}
    mine = world.save(world.root / "mine", "mine")
    runner.run(world.config("self_instruct", name="two", self_instruct={"model": str(mine)}))
    assert world.calls[1].parents == {"model": mine}
    server = SelfInstructServerConfig(url="http://localhost:1/v1", model="m")
    runner.run(world.config("self_instruct", name="three", self_instruct={"server": server}))
    assert world.calls[2].parents == {}
    with pytest.raises(UserError, match=r"nowhere.*set self_instruct\.model"):
        runner.run(world.config("self_instruct", name="four", self_instruct={"model": "./nowhere"}))


def test_self_instruct_goes_on_from_its_rounds_and_refuses_another_config(world: World) -> None:
    world.fail["self_instruct"] = KeyboardInterrupt()
    with pytest.raises(KeyboardInterrupt):
        runner.run(world.config("self_instruct"))
    (world.folder("demo/self_instruct").path / "rounds.jsonl").write_text("{}\n")
    with pytest.raises(UserError, match=r"self_instruct\.temperature 0\.7 -> 0\.9"):
        runner.run(world.config("self_instruct", self_instruct={"temperature": 0.9}))
    world.fail.clear()
    runner.run(world.config("self_instruct", self_instruct={"patience": 50}))  # which only says when to give up
    assert world.calls[-1].resume
    seeds = world.root / "seeds.jsonl"
    task = {"id": "s", "name": "sort", "instruction": "Sort.", "is_classification": False}
    seeds.write_text(json.dumps({**task, "instances": [{"input": "b a", "output": "a b"}]}) + "\n")
    with pytest.raises(UserError, match="other data"):
        runner.run(world.config("self_instruct", self_instruct={"seeds": str(seeds)}))


def test_full_disk_is_a_sentence_with_the_path(world: World) -> None:
    world.fail["sft"] = OSError(errno.ENOSPC, "No space left on device")
    with pytest.raises(UserError, match=r"disk is full: .*demo/sft"):
        runner.run(world.config("sft"))


def test_list_of_bad_rows_belongs_to_the_run_that_read_them(world: World) -> None:
    world.bad_row = True
    runner.run(world.config("sft"))
    path = world.folder("demo/sft").path / "bad_rows.jsonl"
    assert path.read_text() == "row 3\n"
    path.write_text("row 3\nrow 9\n")  # the stage found one more
    runner.run(world.config("sft"))
    assert path.read_text() == "row 3\nrow 9\n"


@pytest.mark.parametrize(
    ("keys", "touched"),
    [
        (("ppo.kl.coef",), {"ppo", "compare"}),
        (("reward.optim.lr",), {"reward", "ppo", "compare"}),
        (("sft.epochs",), {"sft", "reward", "ppo", "compare"}),
        (("compare.prompts",), {"compare"}),
        (("judge",), {"compare"}),
        (("judge.tie_margin", "ppo.gamma"), {"ppo", "compare"}),
        (("tracker.wandb", "launch.threads", "run.root"), set()),
        (("seed",), {"pretrain", "sft", "reward", "ppo", "compare"}),
        (("model",), {"pretrain", "sft", "reward", "ppo", "compare"}),
        (("data.max_rows",), {"pretrain", "sft", "reward", "ppo", "compare"}),
        (("pretrain.epochs",), {"pretrain", "sft", "reward", "ppo", "compare"}),
    ],
)
def test_swept_keys_reach_their_stage_and_later_ones(keys: tuple[str, ...], touched: set[str]) -> None:
    assert {s.value for s in (StageName.pretrain, *CHAIN) if reaching([f"{key}=1" for key in keys], s)} == touched


def sweep_jobs(world: World, stage: str = "ppo") -> list[Job]:
    return [
        Job(
            f"ppo.kl.coef={coef}",
            (f"ppo.kl.coef={coef}",),
            world.config(stage, ppo={"kl": dataclasses.replace(Config().ppo.kl, coef=coef)}),
        )
        for coef in (0.0, 0.5)
    ]


def test_siblings_share_what_the_sweep_does_not_reach(world: World) -> None:
    for job in sweep_jobs(world, "all"):
        runner.run(job.config, job.swept)
    assert world.ran() == [
        "demo/sft",
        "demo/reward",
        "demo/sweep/ppo.kl.coef=0.0/ppo",
        "demo/sweep/ppo.kl.coef=0.5/ppo",
    ]


def test_siblings_share_a_stage_that_only_some_of_the_swept_keys_reach(world: World) -> None:
    for coef, seed in itertools.product((0.0, 0.5), (1, 2)):
        kl = dataclasses.replace(Config().ppo.kl, coef=coef)
        runner.run(world.config("all", seed=seed, ppo={"kl": kl}), (f"ppo.kl.coef={coef}", f"seed={seed}"))
    contexts = list(world.calls)
    ran = world.ran()
    assert [name for name in ran if name.endswith(("sft", "reward"))] == [
        *("demo/sweep/seed=1/sft", "demo/sweep/seed=1/reward", "demo/sweep/seed=2/sft", "demo/sweep/seed=2/reward")
    ]
    assert [name for name in ran if name.endswith("ppo")] == [
        f"demo/sweep/ppo.kl.coef={coef},seed={seed}/ppo" for coef in (0.0, 0.5) for seed in (1, 2)
    ]
    last_policy = next(context for context in reversed(contexts) if context.folder.path.name == "ppo")
    assert last_policy.parents["policy"] == world.folder("demo/sweep/seed=2/sft").model_dir


def test_seed_of_ppo_alone_leaves_its_parents_to_be_shared(world: World) -> None:
    for seed in (1, 2):
        runner.run(world.config("all", seed=7, ppo={"seed": seed}), (f"ppo.seed={seed}",))
    seeds = {(call.folder.path.name, call.config.seed) for call in world.calls}
    assert world.ran() == [*("demo/sft", "demo/reward", "demo/sweep/ppo.seed=1/ppo", "demo/sweep/ppo.seed=2/ppo")]
    assert seeds == {("sft", 7), ("reward", 7), ("ppo", 1), ("ppo", 2)}


def test_job_starts_from_the_runs_models_when_it_has_none_of_its_own(world: World) -> None:
    runner.run(world.config("sft"))
    runner.run(world.config("reward"))
    runner.run(world.config("ppo", seed=1), ("seed=1",))
    assert world.calls[-1].parents["policy"] == world.folder("demo/sft").model_dir
    runner.run(world.config("sft", seed=2), ("seed=2",))
    runner.run(world.config("ppo", seed=2), ("seed=2",))
    assert world.calls[-1].parents["policy"] == world.folder("demo/sweep/seed=2/sft").model_dir
    assert world.calls[-1].parents["reward_model"] == world.folder("demo/reward").model_dir


def test_sweep_ends_in_a_table_and_a_report(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(world.config("sft"))
    runner.run(world.config("reward"))
    swept_jobs = sweep_jobs(world)
    started = sweep.start(swept_jobs)
    sweep.check(swept_jobs)
    for job in swept_jobs:
        runner.run(job.config, job.swept)
        sweep.record(job.config, job.name, 0, "")
    world.ran()
    assert sweep.finish(swept_jobs, started) == 0
    (context,) = world.calls
    assert context.folder.path == world.folder("demo/report").path
    policies = {path for role, path in context.parents.items() if role.startswith("policies/")}
    assert policies == {world.folder(f"demo/sweep/ppo.kl.coef={coef}/ppo").model_dir for coef in (0.0, 0.5)}
    starts = {path for role, path in context.parents.items() if role.startswith("starts/")}
    assert starts == {world.base, world.folder("demo/sft").model_dir, world.folder("demo/reward").model_dir}
    said = capsys.readouterr().out
    assert "ppo.kl.coef=0.5     2.000" in said


def test_failed_job_is_listed_and_the_rest_reported(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    runner.run(world.config("sft"))
    runner.run(world.config("reward"))
    swept_jobs = sweep_jobs(world)
    started = sweep.start(swept_jobs)
    runner.run(swept_jobs[0].config, swept_jobs[0].swept)
    sweep.record(swept_jobs[0].config, swept_jobs[0].name, 0, "")
    sweep.record(swept_jobs[1].config, swept_jobs[1].name, 1, "RuntimeError: boom")
    assert sweep.finish(swept_jobs, started) == 1
    assert "1 of 2 jobs failed:\n  ppo.kl.coef=0.5: RuntimeError: boom" in capsys.readouterr().out
    assert world.calls[-1].config.stage == StageName.report
    policies = [path for role, path in world.calls[-1].parents.items() if role.startswith("policies/")]
    assert policies == [world.folder("demo/sweep/ppo.kl.coef=0.0/ppo").model_dir]


def test_report_gathers_all_sweeps_of_a_run_and_of_others_and_is_made_again_when_one_was_added(world: World) -> None:
    runner.run(world.config("all"))
    runner.run(world.config("all", name="other", seed=3))
    first, second = sweep_jobs(world)
    runner.run(first.config, first.swept)
    world.ran()
    alone, with_other = (
        world.config("report"),
        world.config("report", report={"runs": [str(world.folder("other").path)]}),
    )

    def policies(config: Config) -> list[str]:
        world.calls.clear()
        runner.run(config)
        return sorted(
            path.relative_to(world.root / "runs").as_posix()
            for context in world.calls
            for role, path in context.parents.items()
            if role.startswith("policies/")
        )

    own = ["demo/ppo/model", "demo/sweep/ppo.kl.coef=0.0/ppo/model"]
    assert policies(alone) == own
    assert policies(alone) == []  # nothing is new
    assert policies(with_other) == [*own, "other/ppo/model"]
    runner.run(second.config, second.swept)
    assert policies(alone) == [*own, "demo/sweep/ppo.kl.coef=0.5/ppo/model"]
    assert [path.name for path in world.folder("demo").path.glob("report*")] == ["report"]


def test_report_without_a_policy_is_refused_with_the_command_that_makes_some(world: World) -> None:
    runner.run(world.config("sft"))
    with pytest.raises(UserError, match=r"no finished PPO in .*demo; train some with `python -m rlhf -m \+sweep=kl"):
        runner.run(world.config("report"))


@pytest.mark.parametrize("stage", ["plan", "report", "label"])
def test_what_is_no_job_of_a_sweep_is_refused(world: World, stage: str) -> None:
    with pytest.raises(UserError, match=f"stage={stage} is no sweep's job"):
        sweep.check(sweep_jobs(world, stage))


def test_job_that_never_reported_counts_as_failed(world: World, capsys: pytest.CaptureFixture[str]) -> None:
    swept_jobs = sweep_jobs(world)
    sweep.record(swept_jobs[0].config, swept_jobs[0].name, 0, "")  # of an earlier sweep
    assert sweep.finish(swept_jobs, sweep.start(swept_jobs)) == 1
    assert "2 of 2 jobs failed" in capsys.readouterr().out


@contextlib.contextmanager
def another_at_work(world: World) -> Iterator[Path]:
    """Inside, somebody else holds the lock of the run's SFT; gives the lock."""
    folder = world.folder("demo/sft")
    folder.path.mkdir(parents=True)
    lock = folder.path.parent / ".sft.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        held.write("process 1234 on node-a")
        held.flush()
        yield lock


def test_a_second_process_in_a_run_folder_is_refused(world: World) -> None:
    with another_at_work(world) as lock:
        with pytest.raises(UserError, match=r"demo/sft is being worked on by process 1234 on node-a"):
            runner.run(world.config("sft"))
        assert lock.exists()
        assert world.calls == []
    runner.run(world.config("sft"))  # the lock is there yet, but its owner is gone
    assert world.ran() == ["demo/sft"]
    assert not lock.exists()


def test_jobs_of_a_sweep_wait_for_the_one_that_trains_what_they_share(world: World) -> None:
    (job, _) = sweep_jobs(world, stage="all")
    with another_at_work(world) as lock:
        other = threading.Thread(target=runner.run, args=(job.config, job.swept))
        other.start()
        other.join(0.5)
        assert other.is_alive()
        assert world.calls == []
        lock.unlink()
    other.join(30)
    assert "demo/sft" in world.ran()
    assert not lock.exists()


def test_same_seed_same_numbers() -> None:
    import random

    import numpy
    import torch

    def draw() -> tuple[float, float, float]:
        return random.random(), float(numpy.random.rand()), float(torch.rand(()))

    seed_everything(7)
    first = draw()
    seed_everything(7)
    assert draw() == first
    seed_everything(8)
    assert draw() != first


def write_score(folder: Path, value: float) -> None:
    (folder / "pipeline_score.py").write_text(f"def score(prompts, responses, records):\n    return {value}\n")


@pytest.fixture
def score_fn(world: World, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.syspath_prepend(str(world.root))
    monkeypatch.delitem(sys.modules, "pipeline_score", raising=False)
    write_score(world.root, 1.0)
    return "pipeline_score:score"


def test_function_alone_needs_no_reward_model_and_the_value_model_starts_from_the_policy(
    world: World, score_fn: str
) -> None:
    runner.run(world.config("sft"))
    runner.run(world.config("ppo", ppo={"reward_fn": score_fn}))
    sft = world.folder("demo/sft").model_dir
    assert world.calls[-1].parents == {"policy": sft, "value_model": sft}
    mine = world.save(world.root / "mine", "mine")
    runner.run(
        world.config("ppo", name="other", ppo={"policy": str(sft), "reward_fn": score_fn, "value_model": str(mine)})
    )
    assert world.calls[-1].parents == {"policy": sft, "value_model": mine}


def test_a_weight_brings_the_runs_own_reward_model_in_beside_a_function(world: World, score_fn: str) -> None:
    runner.run(world.config("sft"))
    given = {"reward_fn": score_fn, "reward_weights": {"reward_model": 0.5}}
    with pytest.raises(UserError, match=r"stage=reward .*ppo\.reward_model="):
        runner.run(world.config("ppo", ppo=given))
    runner.run(world.config("reward"))
    runner.run(world.config("ppo", ppo=given))
    reward = world.folder("demo/reward").model_dir
    assert world.calls[-1].parents["reward_model"] == world.calls[-1].parents["value_model"] == reward


def test_several_reward_models_are_parents_by_name_and_must_share_the_tokenizer(world: World) -> None:
    runner.run(world.config("sft"))
    paths = {name: str(world.save(world.root / name, name)) for name in ("helpful", "harmless")}
    config = world.config("ppo", ppo={"reward_models": paths})
    world.tokenizers[paths["harmless"]] = "other"
    with pytest.raises(UserError, match=r"ppo\.reward_models\.harmless .* another tokenizer"):
        runner.run(config)
    world.tokenizers.clear()
    runner.run(config)
    parents = {role: str(path) for role, path in world.calls[-1].parents.items() if role != "policy"}
    assert parents == {f"reward_models/{name}": path for name, path in paths.items()} | {
        "value_model": paths["helpful"]
    }
    with pytest.raises(UserError, match=r"ppo\.reward_models\.helpful"):
        runner.run(world.config("ppo", name="absent", ppo={"reward_models": {"helpful": "no/such/model"}}))


def test_another_weight_reward_model_or_function_is_another_config(world: World, score_fn: str) -> None:
    runner.run(world.config("sft"))
    mine = str(world.save(world.root / "mine", "mine"))
    given = {"reward_fn": score_fn, "reward_models": {"mine": mine}}
    runner.run(world.config("ppo", ppo=given))
    world.ran()
    runner.run(world.config("ppo", ppo=given))
    assert world.ran() == []
    with pytest.raises(UserError, match=r"ppo\.reward_weights\.mine null -> 2"):
        runner.run(world.config("ppo", ppo=given | {"reward_weights": {"mine": 2.0}}))
    with pytest.raises(UserError, match="another reward_models/mine model"):
        runner.run(world.config("ppo", ppo=given | {"reward_models": {}}))
    write_score(world.root, 2.0)
    with pytest.raises(UserError, match=r"other code behind ppo\.reward_fn"):
        runner.run(world.config("ppo", ppo=given))
    write_score(world.root, 1.0)
    world.save(world.root / "mine", "changed")
    with pytest.raises(UserError, match="another reward_models/mine model"):
        runner.run(world.config("ppo", ppo=given))


def test_a_function_that_cannot_be_called_is_refused_before_the_first_stage(world: World) -> None:
    with pytest.raises(UserError, match="there is no module nowhere_at_all"):
        runner.run(world.config("all", ppo={"reward_fn": "nowhere_at_all:score"}))
    with pytest.raises(UserError, match="there is no module nowhere_at_all"):
        runner.check(world.config("all", ppo={"reward_fn": "nowhere_at_all:score"}), parents=False)
    assert world.calls == []
    runner.run(world.config("sft", ppo={"reward_fn": "nowhere_at_all:score"}))


def test_a_quantizer_that_is_not_there_is_refused_before_the_first_stage(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name, *a: None if name == "bitsandbytes" else real(name, *a)
    )
    config = world.config("all")
    model = dataclasses.replace(config.model, lora=LoraConfig(r=4), quantization=Quantization.int8)
    with pytest.raises(UserError, match=r"model\.quantization=int8 needs bitsandbytes"):
        runner.run(dataclasses.replace(config, model=model))
    assert world.calls == []
    assert not world.folder("demo/sft").path.exists()


def test_manifests_from_before_there_were_functions_are_still_skipped(world: World) -> None:
    runner.run(world.config())
    world.ran()
    folder = world.folder("demo/ppo")
    manifest = folder.manifest or {}
    del manifest["reward_fn"]
    for key in ("ppo.reward_fn", "ppo.reward_weights"):
        del manifest["config"][key]
    folder.manifest_path.write_text(json.dumps(manifest))
    runner.run(world.config("ppo"))
    assert world.ran() == []


@pytest.mark.parametrize(("asked", "got"), [("auto", "medium"), ("highest", "highest"), ("high", "high")])
def test_float32_products_are_as_exact_as_the_config_says(asked: str, got: str) -> None:
    import torch

    before = torch.get_float32_matmul_precision()
    try:
        prepare_torch(Config(launch=LaunchConfig(device=Device.cpu, float32_matmul=Float32Matmul(asked))))
        assert torch.get_float32_matmul_precision() == got
    finally:
        torch.set_float32_matmul_precision(before)


def test_cuda_graphs_on_a_cpu_are_refused_at_once() -> None:
    config = Config(launch=LaunchConfig(device=Device.cpu), rollout=RolloutConfig(cuda_graphs=True))
    with pytest.raises(UserError, match=r"rollout\.cuda_graphs=true finds no CUDA device"):
        prepare_torch(config)


def jobs_of(world: World, *words: str) -> list[Job]:
    words = tuple(compose.normalise(word) for word in words)
    own = (f"run.root={world.root / 'runs'}", f"model.path={world.base}", "run.name=swept")
    return compose.expand(main._parse(["-m", *words, *own]))


@pytest.mark.parametrize("sweep_name", sorted(path.stem for path in (compose.conf_dir() / "sweep").glob("*.yaml")))
def test_a_shipped_sweep_can_be_typed_again_after_a_kill_and_after_its_end(world: World, sweep_name: str) -> None:
    jobs = jobs_of(world, f"+sweep={sweep_name}")
    assert len({job.name for job in jobs}) > 1
    sweep.check(jobs)
    world.fail["ppo"] = KeyboardInterrupt()  # the kill: parents are finished, the first policy has begun
    with pytest.raises(KeyboardInterrupt):
        runner.run(jobs[0].config, jobs[0].swept)
    world.fail.clear()
    sweep.check(jobs)
    for job in jobs:
        runner.run(job.config, job.swept)
    world.ran()
    sweep.check(jobs)
    for job in jobs:
        runner.run(job.config, job.swept)
    assert world.ran() == []


def test_a_finished_model_that_was_changed_or_is_gone_is_said_and_can_be_made_again(world: World) -> None:
    runner.run(world.config())
    world.ran()
    model = world.folder("demo/sft").model_dir / "model.safetensors"
    before = model.read_bytes()
    model.write_text("other")
    for stage in ("sft", "reward"):
        with pytest.raises(
            UserError, match=r"demo/sft is finished, and its model/ is no longer what it saved.*again=\[sft\]"
        ):
            runner.run(world.config(stage, name="demo"))
    model.write_bytes(before)  # with another time, as after a copy
    runner.run(world.config())
    assert world.ran() == []
    shutil.rmtree(model.parent)
    with pytest.raises(UserError, match=r"its model/ is gone"):
        runner.check(world.config("reward", name="demo"))
    runner.run(world.config("sft", run={"again": [StageName.sft]}))
    (context,) = world.calls
    assert context.resume
    world.ran()
    runner.run(world.config())
    assert world.ran() == []

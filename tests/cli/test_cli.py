"""The command line: help and refusals at once, one line for a mistake, sweeps that outlive a failed job."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from pathlib import Path

import pytest

from rlhf import __version__
from rlhf.cli import compose, help, main, quiet
from rlhf.config import StageName
from rlhf.config.keys import all_keys
from tests.support.fake_stages import World, world

__all__ = ["world"]  # the fixture

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "transformers", "deepspeed", "trl", "datasets", "wandb", "matplotlib")


def python(*words: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        [sys.executable, *words], capture_output=True, text=True, cwd=cwd or ROOT, env=environment, timeout=60
    )


def cpu_seconds(*words: str, cwd: Path) -> float:
    """Processor time of the quicker of two runs. Nothing here waits for anything, so a person on a free machine waits
    no longer; wall time would measure what else this machine is doing."""
    times = []
    for _ in range(2):
        before = resource.getrusage(resource.RUSAGE_CHILDREN)
        python(*words, cwd=cwd)
        after = resource.getrusage(resource.RUSAGE_CHILDREN)
        times.append(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime)
    return min(times)


def imported(tmp_path: Path, *words: str) -> set[str]:
    """The top-level modules loaded when the command line `words` has been dealt with."""
    code = (
        "import sys\n"
        "import rlhf.cli.main\n"
        f"sys.argv = ['rlhf', *{list(words)!r}]\n"
        "try:\n    rlhf.cli.main.main()\n"
        "except SystemExit:\n    pass\n"
        "print('LOADED', *{name.partition('.')[0] for name in sys.modules})\n"
    )
    done = python("-c", code, cwd=tmp_path)
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("LOADED")]
    return set(line.split()[1:])


def run_main(monkeypatch: pytest.MonkeyPatch, *words: str) -> int:
    monkeypatch.setattr(sys, "argv", ["rlhf", *words])
    with pytest.raises(SystemExit) as caught:
        main.main()
    assert isinstance(caught.value.code, int)
    return caught.value.code


def test_help_is_fast_and_loads_nothing(tmp_path: Path) -> None:
    assert cpu_seconds("-m", "rlhf", "--help", cwd=tmp_path) < 1.5
    assert not imported(tmp_path, "--help") & {*HEAVY, "hydra", "omegaconf", "yaml", "numpy"}


@pytest.mark.parametrize("words", [["ppo.kl.coeff=1"], ["ppo.kl.coef=-1"], ["stage=ppo"], ["-m", "seed=1,x"]])
def test_refusal_is_fast_one_line_status_2_and_loads_no_torch(tmp_path: Path, words: list[str]) -> None:
    assert cpu_seconds("-m", "rlhf", *words, cwd=tmp_path) < 2
    done = python("-m", "rlhf", *words, cwd=tmp_path)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stderr.startswith("rlhf: ")
    assert done.stdout == ""
    assert not imported(tmp_path, *words) & set(HEAVY)
    assert list(tmp_path.iterdir()) == []


def test_help_names_every_group_option_stage_and_where_output_goes() -> None:
    text = help.help_text()
    words = text.replace(",", " ").split()
    for group, options in compose.groups().items():
        assert f"{group}=" in text
        assert [option for option in options if option not in words] == []
    for word in ("report.html", "manifest.json", "--version"):
        assert word in text
    assert [stage for stage in StageName if f"\n  {stage.value} " not in text] == []
    assert all(len(line) <= 120 for line in text.splitlines())


def test_help_of_a_node_has_every_key_with_its_default() -> None:
    text = help.help_text("ppo")
    assert "ppo.kl.coef=0.05\n      a number. weight of the penalty" in text
    assert [name for name in all_keys() if name.startswith("ppo.") and f"  {name}=" not in text] == []
    assert "bfloat16" in help.help_text("model.dtype")
    assert "sharded" in help.help_text("zero")


def test_help_of_something_else_says_what_was_meant(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert run_main(monkeypatch, "--help", "ppoo") == 2
    assert "Did you mean ppo" in capsys.readouterr().err


def test_version(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "--version") == 0
    assert capsys.readouterr().out == f"rlhf {__version__}\n"


def test_composed_config_can_be_looked_at(tmp_path: Path) -> None:
    done = python("-m", "rlhf", "--cfg", "job", "ppo.kl.coef=0.3", cwd=tmp_path)
    assert "    coef: 0.3" in done.stdout
    assert list(tmp_path.iterdir()) == []


def test_chain_runs_from_the_command_line_and_hydra_leaves_nothing(
    world: World, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run_main(monkeypatch, f"model.path={world.base}", "run.name=x") == 0
    assert len(world.calls) == 4
    assert sorted(path.name for path in (tmp_path / "runs" / "x").iterdir()) == ["compare", "ppo", "reward", "sft"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["base", "runs"]


def common(world: World) -> list[str]:
    return [f"model.path={world.base}", f"run.root={world.root / 'runs'}"]


def test_crash_is_a_traceback_with_the_log_and_status_1(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail["sft"] = RuntimeError("boom")
    assert run_main(monkeypatch, "stage=sft", *common(world)) == 1
    error = capsys.readouterr().err
    assert "RuntimeError: boom" in error
    assert f"The log is {world.folder('demo/sft').log_path}" in error


def test_interrupt_is_one_line_and_status_130(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail["sft"] = KeyboardInterrupt()
    assert run_main(monkeypatch, "stage=sft", *common(world)) == 130
    assert capsys.readouterr().err == "rlhf: Interrupted. The same command goes on from the last checkpoint.\n"


def test_sweep_runs_its_jobs_in_their_folders_and_reports_on_them(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_main(monkeypatch, *common(world)) == 0
    world.ran()
    assert run_main(monkeypatch, "-m", "stage=ppo", "ppo.kl.coef=0,0.5", *common(world)) == 0
    names = ["demo/sweep/ppo.kl.coef=0/ppo", "demo/sweep/ppo.kl.coef=0.5/ppo", "demo/report"]
    coefs = [context.config.ppo.kl.coef for context in world.calls[:2]]
    assert coefs == [0, 0.5]
    assert world.ran() == names
    assert run_main(monkeypatch, "-m", "stage=ppo", "ppo.kl.coef=0,0.5", *common(world)) == 0
    assert world.ran() == []
    said = capsys.readouterr().out
    assert "ppo.kl.coef=0.5     2.000" in said


def test_failed_job_does_not_stop_the_others_and_the_sweep_fails(
    world: World, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    world.fail["sft"] = RuntimeError("boom")
    assert run_main(monkeypatch, "-m", "stage=pretrain,sft", "seed=1,2", *common(world)) == 1
    assert [name.rsplit("/", 1)[1] for name in world.ran()] == ["pretrain", "pretrain", "sft", "sft"]
    assert "2 of 4 jobs failed" in capsys.readouterr().out


def test_sweep_over_stages_alone_shares_one_folder(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "-m", "stage=sft,reward", *common(world)) == 0
    assert world.ran() == ["demo/sft", "demo/reward"]


def test_multirun_with_nothing_to_sweep_is_a_plain_run(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    assert run_main(monkeypatch, "-m", "stage=sft", "zero=3", *common(world)) == 0
    assert world.calls[0].config.zero.stage == 3
    assert world.ran() == ["demo/sft"]


def test_network_is_off_unless_the_config_names_the_hub(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    local = world.config()
    assert not quiet.names_hub(local)
    local.compare.lm_eval = ["hellaswag"]
    assert quiet.names_hub(local)
    local.compare.lm_eval = []
    local.ppo.reward_model = "some/reward-model"
    assert quiet.names_hub(local)
    assert quiet.names_hub(compose.expand(main._parse(["model=gpt2"]))[0].config)

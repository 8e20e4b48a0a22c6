"""The command line: help, checked configs, Hydra's launchers, and errors a person can act on.

Help and refusals answer before torch, Transformers or DeepSpeed load.
"""

from __future__ import annotations

import argparse
import contextlib
import logging
import os
import sys
import traceback
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from rlhf import __version__, distributed
from rlhf.config import Config, DataSourceName, StageName
from rlhf.distributed import is_main_process
from rlhf.errors import UserError
from rlhf.stopping import INTERRUPTED, terminate_as_interrupt

if TYPE_CHECKING:
    from rlhf.compose import Job

_HELP = """\
python -m rlhf [-m] [KEY=VALUE ...]         three-stage RLHF in the style of InstructGPT

  Takes a base model through supervised fine-tuning, a reward model and PPO, and compares what each stage won.
  Without arguments it does all of that on the built-in sandbox: no download, a few minutes on a laptop.

Commands
  python -m rlhf                                        the whole chain: sft, reward, ppo, compare
  python -m rlhf stage=sft model=gpt2 data=alpaca data.path=alpaca.json run.name=gpt2        one stage
  python -m rlhf stage=ppo ppo.kl.coef=0.1 run.name=kl0.1 run.parents=runs/demo              from another run's models
  python -m rlhf stage=ppo ppo.policy=PATH ppo.reward_model=PATH run.name=mine               from any models
  python -m rlhf -m +sweep=kl                           a sweep: six KL coefficients, three seeds, one report
  python -m rlhf -m stage=ppo ppo.kl.coef=0,0.02,0.1 ppo.seed=1,2                a sweep of one's own: six jobs
  python -m rlhf +recipe=instructgpt_1p3b run.name=paper                         a paper's numbers
  python -m rlhf +debug=tiny run.name=try                                        anything, shrunk to seconds

Stages (stage=...)
  all         sft, reward, ppo, compare in order; finished ones are skipped, interrupted ones resume (default)
  pretrain    a small base model from nothing
  sft         supervised fine-tuning on demonstrations
  reward      a reward model from ranked completions
  ppo         PPO against the reward model, with a KL penalty towards the SFT model
  compare     win rates with confidence intervals, a table and report.html
  report      what the run's sweeps found: what holds in words, tables, score against KL, win rates by size
  label       a page on which people rank responses; their rankings train, their verdicts compare
  data        what is in the data: rows, lengths in tokens, duplicates, examples with what is learned marked
  self_instruct  a data set of instructions, grown from seed tasks with a model
  plan        what the chain would take of each GPU's memory, whether it fits, and what to change; runs nothing

Settings most often changed (default)
{keys}

Groups (default first)
{groups}

More
  --help NODE      every setting of a node with its meaning; NODE is one of
                   {nodes}
  -m, --multirun   run every combination of comma-separated values
  --cfg job        print the composed config, run nothing
  --config-dir DIR more YAML files for the groups
  --version

Output goes to {root}/RUN/STAGE/, RUN being run.name: config.yaml, manifest.json, metrics.jsonl, samples.jsonl, log.txt,
checkpoints/, model/ (loads with from_pretrained); the comparison to {root}/RUN/compare/report.html.
"""
_NODES_INDENT = " " * 19  # under the words beside --help NODE
_COMMON_KEYS = (
    *("run.name", "seed", "model.path", "model.lora.r", "data.path"),
    *("sft.base", "sft.epochs", "sft.optim.lr", "reward.policy", "reward.epochs", "reward.optim.lr"),
    *(
        "ppo.policy",
        "ppo.reward_model",
        "ppo.episodes",
        "ppo.batch_size",
        "ppo.optim.lr",
        "ppo.kl.coef",
        "ppo.ptx.coef",
    ),
    *("rollout.temperature", "rollout.max_new_tokens", "launch.device", "launch.gpus_per_node"),
)


def main() -> NoReturn:
    """Runs the command line in sys.argv and exits: 0 done, 1 a crash or a failed job, 2 a mistake, 130 interrupted."""
    terminate_as_interrupt()
    try:
        status = _main(sys.argv[1:])
    except UserError as error:
        _say(str(error))
        status = 2
    except KeyboardInterrupt as error:
        _say(str(error) or "Interrupted. The same command goes on from the last checkpoint.")
        status = INTERRUPTED
    except BrokenPipeError:  # | head
        _print_no_more()
        status = 0
    if status == 0:
        distributed.done()
    sys.exit(status)


def _print_no_more() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _say(text: str) -> None:
    if is_main_process():
        print(f"rlhf: {text}", file=sys.stderr)


def _main(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(help_text(*[word for word in words if not word.startswith("-")]), end="")
        return 0
    if "--version" in words:
        print(f"rlhf {__version__}")
        return 0

    from rlhf import compose

    words = compose.with_data_path(words)
    words = [word if word.startswith("-") else compose.normalise(word) for word in words]
    words = compose.debug_last(compose.with_model_group(words))
    words.sort(key=lambda word: word not in ("-m", "--multirun"))  # Hydra wants it before the settings
    arguments = _parse(words)
    asks = (arguments.cfg, arguments.info, arguments.hydra_help, arguments.shell_completion)
    if any(ask not in (None, False) for ask in asks):
        compose.register_schema()
        _run_hydra(words)
        return 0
    jobs = compose.expand(arguments)
    sweeping = not (len(jobs) == 1 and jobs[0].name is None)
    if sweeping:
        return _sweep(words, compose.fixed_keys(arguments), jobs)
    words = [word for word in words if word not in ("-m", "--multirun")]
    if any(word.startswith(("-", "hydra")) for word in words):
        _run_hydra(words)
        return 0
    # The job is composed and checked; Hydra, of which nothing is asked, would compose it twice more, half a second.
    status, _ = run_job(jobs[0].config, ())
    return status


def _parse(words: list[str]) -> argparse.Namespace:
    from hydra._internal.utils import get_args_parser

    parser = get_args_parser()

    def refuse(message: str) -> NoReturn:
        raise UserError(f"{message}; python -m rlhf --help shows what there is.")

    parser.error = refuse  # type: ignore[method-assign]
    return parser.parse_args(words)


def _run_hydra(words: list[str]) -> None:
    import hydra

    from rlhf.compose import CONFIG_NAME, conf_dir

    sys.argv = [sys.argv[0], *words]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)(task)()


def _sweep(words: list[str], fixed_keys: list[str], jobs: list[Job]) -> int:
    from rlhf import sweep

    sweep.check(jobs)
    started = sweep.start(jobs)
    quoted = ",".join(f"'{key}'" for key in fixed_keys)
    _run_hydra([*words, f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"])
    return sweep.finish(jobs, started)


def task(composed: Any) -> None:
    """One job, in whatever process Hydra's launcher put it. Leaves by SystemExit unless it is part of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from rlhf.compose import to_config

    settings = HydraConfig.get()
    config = to_config(composed)
    if settings.mode != RunMode.MULTIRUN:
        status, _ = run_job(config, ())
        if status:
            raise SystemExit(status)
        return

    from rlhf import sweep
    from rlhf.jobs import job_name, swept_settings

    fixed = set(settings.job.config.override_dirname.exclude_keys)
    swept = swept_settings([word for word in settings.overrides.task if word.partition("=")[0] not in fixed])
    name = job_name(swept)
    print(f"\n== {name or config.stage.value} ==", flush=True)
    status, message = run_job(config, swept)
    sweep.record(config, name, status, message)


def run_job(config: Config, swept: tuple[str, ...]) -> tuple[int, str]:
    """Runs the pipeline; returns the exit status and, on a failure, one line that says what happened."""
    quiet_libraries(config)
    from rlhf import launcher, pipeline, plan

    if config.stage == StageName.plan:
        return run_guarded(lambda: print(plan.table(config)))
    if config.stage == StageName.data:
        return run_guarded(lambda: _show_data(config))
    if config.stage == StageName.compare and config.compare.of_published:
        return run_guarded(lambda: _compare_published(config))
    if config.stage == StageName.label:
        return run_guarded(lambda: _label(config))
    if launcher.needed(config):
        return launcher.run(config, swept)
    return run_guarded(lambda: pipeline.run(config, swept))


def _show_data(config: Config) -> None:
    import datasets

    from stages import data

    datasets.disable_progress_bars()
    try:
        data.run(config)
        sys.stdout.flush()
    except BrokenPipeError:  # | head
        _print_no_more()


def _compare_published(config: Config) -> None:
    from stages import published

    published.run(config)


def _label(config: Config) -> None:
    from stages import label

    label.run(config)


def run_guarded(work: Callable[[], None]) -> tuple[int, str]:
    """Does `work`; a mistake becomes a sentence on the terminal and status 2, a crash a traceback and status 1."""
    try:
        work()
    except UserError as error:
        _say(str(error))
        return 2, str(error)
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}".splitlines()[0]
    return 0, ""


def quiet_libraries(config: Config) -> None:
    """Environment and filters for libraries that talk or reach out unasked; a value the user set stays."""
    for name, value in {
        "TOKENIZERS_PARALLELISM": "false",
        "TRANSFORMERS_VERBOSITY": "error",
        "TRANSFORMERS_NO_ADVISORY_WARNINGS": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "DS_LOG_LEVEL": "ERROR",
        "WANDB_SILENT": "true",
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }.items():
        os.environ.setdefault(name, value)
    if not names_hub(config):
        for name in ("HF_HUB_OFFLINE", "HF_DATASETS_OFFLINE", "TRANSFORMERS_OFFLINE"):
            os.environ.setdefault(name, "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # says at import what it could not download
    warnings.filterwarnings("ignore", category=FutureWarning)
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    warnings.filterwarnings("ignore", module=r"(transformers|trl|deepspeed|torch|hydra|accelerate|peft)(\..*)?")


def names_hub(config: Config) -> bool:
    """True if some path of the config is neither builtin nor on this disk, so that it can only be a hub id."""
    paths = [
        config.model.path,
        config.data.path,
        config.data.prompts_path,
        config.sft.base,
        config.sft.reward_model,
        config.reward.policy,
        config.ppo.policy,
        config.ppo.reward_model,
        config.ppo.value_model,
        config.judge.reward_model,
        config.self_instruct.model,
        *config.ppo.reward_models.values(),
        *config.compare.candidates.values(),
    ]
    if config.data.source == DataSourceName.mixture and config.data.path is not None:
        from rlhf.data.mixture_file import load_parts

        paths += [
            path for part in load_parts(config.data.path) for path in (part.config.path, part.config.prompts_path)
        ]
    if config.compare.lm_eval:
        from rlhf.evaluation import lm_eval

        if lm_eval.reaches_hub(config.compare):
            return True
    return any(
        path is not None and not path.startswith("builtin:") and not Path(path).expanduser().exists() for path in paths
    )


def help_text(node: str | None = None, *_: str) -> str:
    """The page `--help` prints; with a node or key, every setting under it with type, default and meaning."""
    from rlhf.compose import groups
    from rlhf.config import RunConfig
    from rlhf.config_keys import all_keys, all_nodes, did_you_mean, show

    keys = all_keys()
    options = groups()
    if node is not None and "=" not in node:
        chosen = [key for name, key in keys.items() if name == node or name.startswith(f"{node}.")]
        lines = [f"  {key.name}={show(key.default)}\n      {key.allowed}. {key.meaning}".rstrip() for key in chosen]
        if node in options:
            lines += [f"  {node}={option}\n      {_first_comment(node, option)}".rstrip() for option in options[node]]
        if not lines:
            hint = did_you_mean(node, [*keys, *options, *all_nodes()])
            raise UserError(f"There is no setting or group {node}.{hint}")
        return "\n".join(lines) + "\n"
    width = max(map(len, _COMMON_KEYS))
    listed = [f"  {name:<{width}}  ({show(keys[name].default)}) {keys[name].meaning}".rstrip() for name in _COMMON_KEYS]
    defaults = _default_options()
    lines = []
    for group in options:
        default = defaults.get(group)
        ordered = [*([default] if default else []), *(name for name in options[group] if name != default)]
        plus = "" if default else "+"
        lines.append(f"  {plus + group + '=':<{width}}  {', '.join(ordered)}")
    tops = dict.fromkeys(name.partition(".")[0] for name in all_nodes())
    return _HELP.format(
        keys="\n".join(_cut(line) for line in listed),
        groups="\n".join(_wrap(line, width + 4) for line in lines),
        nodes=_wrap(_NODES_INDENT + ", ".join(sorted(tops)), len(_NODES_INDENT)).lstrip(),
        root=RunConfig().root,
    )


def _cut(line: str, width: int = 120) -> str:
    return line if len(line) <= width else line[: width - 1].rstrip(" ,;") + "…"


def _wrap(line: str, indent: int, width: int = 120) -> str:
    import textwrap

    return textwrap.fill(line, width, subsequent_indent=" " * indent, break_on_hyphens=False, break_long_words=False)


def _default_options() -> dict[str, str]:
    """The option config.yaml picks for each group; read without a YAML parser, which would double the time to help."""
    from rlhf.compose import CONFIG_NAME, conf_dir

    chosen: dict[str, str] = {}
    for line in (conf_dir() / f"{CONFIG_NAME}.yaml").read_text(encoding="utf-8").splitlines():
        name, colon, option = line.strip().removeprefix("- ").partition(": ")
        if line.startswith("  - ") and colon and "/" not in name:
            chosen[name] = option.strip()
    return chosen


def _first_comment(group: str, option: str) -> str:
    from rlhf.compose import conf_dir

    with contextlib.suppress(OSError):
        for line in (conf_dir() / group / f"{option}.yaml").read_text(encoding="utf-8").splitlines():
            if line.startswith("# ") and not line.startswith("# @"):
                return line.removeprefix("# ")
    return ""

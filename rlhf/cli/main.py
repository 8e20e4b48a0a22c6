"""The command line: help, checked configs, Hydra's launchers, and errors a person can act on.

Help and refusals answer before torch, Transformers or DeepSpeed load.
"""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any, NoReturn

from rlhf import __version__
from rlhf.cli.help import help_text
from rlhf.cli.job import run_job
from rlhf.cli.terminal import print_no_more, say
from rlhf.errors import UserError
from rlhf.runtime import distributed
from rlhf.training.stopping import INTERRUPTED, terminate_as_interrupt

if TYPE_CHECKING:
    from rlhf.cli.compose import Job


def main() -> NoReturn:
    """Runs the command line in sys.argv and exits: 0 done, 1 a crash or a failed job, 2 a mistake, 130 interrupted."""
    terminate_as_interrupt()
    try:
        status = _main(sys.argv[1:])
    except UserError as error:
        say(str(error))
        status = 2
    except KeyboardInterrupt as error:
        say(str(error) or "Interrupted. The same command goes on from the last checkpoint.")
        status = INTERRUPTED
    except BrokenPipeError:  # | head
        print_no_more()
        status = 0
    if status == 0:
        distributed.done()
    sys.exit(status)


def _main(words: list[str]) -> int:
    if "-h" in words or "--help" in words:
        print(help_text(*[word for word in words if not word.startswith("-")]), end="")
        return 0
    if "--version" in words:
        print(f"rlhf {__version__}")
        return 0

    from rlhf.cli import compose

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
    if arguments.config_name is not None or arguments.config_path is not None:
        raise UserError(
            "--config-name and --config-path are not used here; --config-dir DIR adds YAML files to the groups."
        )
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

    from rlhf.cli.compose import CONFIG_NAME, conf_dir

    sys.argv = [sys.argv[0], *words]
    hydra.main(version_base="1.3", config_path=str(conf_dir()), config_name=CONFIG_NAME)(task)()


def _sweep(words: list[str], fixed_keys: list[str], jobs: list[Job]) -> int:
    from rlhf.cli import sweep

    sweep.check(jobs)
    started = sweep.start(jobs)
    quoted = ",".join(f"'{key}'" for key in fixed_keys)
    _run_hydra([*words, f"hydra.job.config.override_dirname.exclude_keys=[{quoted}]"])
    return sweep.finish(jobs, started)


def task(composed: Any) -> None:
    """One job, in whatever process Hydra's launcher put it. Leaves by SystemExit unless it is part of a sweep."""
    from hydra.core.hydra_config import HydraConfig
    from hydra.types import RunMode

    from rlhf.cli.compose import to_config

    settings = HydraConfig.get()
    config = to_config(composed)
    if settings.mode != RunMode.MULTIRUN:
        status, _ = run_job(config, ())
        if status:
            raise SystemExit(status)
        return

    from rlhf.chain.jobs import job_name, swept_settings
    from rlhf.cli import sweep

    fixed = set(settings.job.config.override_dirname.exclude_keys)
    swept = swept_settings([word for word in settings.overrides.task if word.partition("=")[0] not in fixed])
    name = job_name(swept)
    print(f"\n== {name or config.stage.value} ==", flush=True)
    status, message = run_job(config, swept)
    sweep.record(config, name, status, message)

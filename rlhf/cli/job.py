"""One job: the stage or chain that a checked config asks for, on this process or on several."""

from __future__ import annotations

import importlib
import sys
import traceback
from collections.abc import Callable

from rlhf.cli.quiet import quiet_libraries
from rlhf.cli.terminal import print_no_more, say
from rlhf.config import Config, StageName
from rlhf.errors import UserError


def run_job(config: Config, swept: tuple[str, ...]) -> tuple[int, str]:
    """Runs the stage or chain; returns the exit status and, on a failure, one line that says what happened."""
    quiet_libraries(config)
    from rlhf.cli import launcher

    outline = _without_a_run(config)
    if outline is not None:
        return run_guarded(lambda: _show(outline, config))
    if launcher.needed(config):
        return launcher.run(run_rank, config, swept)
    return _run_here(config, swept)


def run_rank(config: Config, swept: tuple[str, ...]) -> tuple[int, str]:
    """The same on one rank of several, a fresh process that a launcher has started."""
    quiet_libraries(config)
    return _run_here(config, swept)


def _run_here(config: Config, swept: tuple[str, ...]) -> tuple[int, str]:
    from rlhf.chain import runner

    return run_guarded(lambda: runner.run(config, swept))


def _without_a_run(config: Config) -> str | None:
    """The outline that shows something and keeps no run to resume; None for a stage of the chain."""
    from rlhf.chain.stages import WITHOUT_A_RUN

    if config.stage == StageName.compare and config.compare.of_published:
        return "published"
    return config.stage.value if config.stage in WITHOUT_A_RUN else None


def _show(outline: str, config: Config) -> None:
    try:
        importlib.import_module(f"stages.{outline}").run(config)
        sys.stdout.flush()
    except BrokenPipeError:  # | head
        print_no_more()


def run_guarded(work: Callable[[], None]) -> tuple[int, str]:
    """Does `work`; a mistake becomes a sentence on the terminal and status 2, a crash a traceback and status 1."""
    try:
        work()
    except UserError as error:
        say(str(error))
        return 2, str(error)
    except Exception as error:
        traceback.print_exc()
        return 1, f"{type(error).__name__}: {error}".splitlines()[0]
    return 0, ""

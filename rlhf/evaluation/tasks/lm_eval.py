"""Tasks of EleutherAI's lm-evaluation-harness, the extra `benchmarks`, on the models of a comparison.

Its own folder of tasks takes half a minute to read and imports torch, so nothing of it is imported before it is needed.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
import importlib.util
import io
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import yaml

from rlhf.config import CompareConfig, Config
from rlhf.errors import UserError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

BATCH_SIZE = 16  # sequences in one forward pass; it sorts them by length
_FILE_BUILDERS = ("json", "csv", "parquet", "text", "arrow")  # of `datasets`, which read files of this disk


def require(config: CompareConfig) -> None:
    """Raises UserError where lm-eval is not installed, a task is not known, or there is no folder of one's own."""
    if not config.lm_eval:
        return
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError(
            "compare.lm_eval needs lm-eval, which is not installed; install it with `pip install 'rlhf[benchmarks]'`, "
            "or set compare.lm_eval=[]."
        )
    if config.lm_eval_path is not None and not Path(config.lm_eval_path).expanduser().is_dir():
        raise UserError(f"There is no folder {config.lm_eval_path}; set compare.lm_eval_path to one of task files.")
    known = _tasks(config.lm_eval_path, local=not reaches_hub(config))
    unknown = [task for task in config.lm_eval if task not in known.all_tasks]
    if unknown:
        where = "" if config.lm_eval_path is None else f" and none in {config.lm_eval_path}"
        raise UserError(
            f"compare.lm_eval holds {unknown[0]}, which is no task of lm-eval{where}; `lm_eval ls tasks` lists its own."
        )


def evaluate(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, config: Config) -> dict[str, Any]:
    """What lm-eval measures: task -> its metrics, `<metric>_stderr` beside each that has one, and `n` items.

    A metric that a task computes through a filter is called `<metric>,<filter>`. Groups stand beside their tasks.
    Prompts are the tasks' own, in no chat template. The softmax runs in float32; seeds are the config's.
    """
    from lm_eval import simple_evaluate
    from lm_eval.models.huggingface import HFLM

    settings, seed = config.compare, config.seed
    logging.getLogger("lm_eval").setLevel(logging.ERROR)
    quiet = contextlib.nullcontext() if config.tracker.progress else contextlib.redirect_stderr(io.StringIO())
    with quiet:
        results = simple_evaluate(
            HFLM(pretrained=model, tokenizer=tokenizer, batch_size=BATCH_SIZE, softmax_dtype="float32"),
            tasks=list(settings.lm_eval),
            num_fewshot=settings.lm_eval_shots,
            limit=settings.lm_eval_limit,
            bootstrap_iters=settings.bootstrap_samples,
            log_samples=False,
            task_manager=_tasks(settings.lm_eval_path, local=not reaches_hub(settings)),
            random_seed=seed,
            numpy_random_seed=seed,
            torch_random_seed=seed,
            fewshot_random_seed=seed,
        )
    assert results is not None, "the first process alone runs it"
    counts = results["n-samples"]
    return {
        task: {**_numbers(found), **({"n": int(counts[task]["effective"])} if task in counts else {})}
        for task, found in results["results"].items()
    }


def _numbers(found: Mapping[str, Any]) -> dict[str, float]:
    named = {}
    for key, value in found.items():
        metric, _, by = key.partition(",")
        # A task's name and alias stand among its metrics, and "N/A" for a standard error that is not defined.
        if by and isinstance(value, int | float) and math.isfinite(value):
            named[metric if by == "none" else key] = float(value)
    return named


@functools.cache
def _tasks(path: str | None, *, local: bool) -> Any:
    """lm-eval's index of tasks; `local` leaves its own out."""
    from lm_eval.tasks import TaskManager

    return TaskManager(include_path=None if path is None else str(Path(path).expanduser()), include_defaults=not local)


def reaches_hub(config: CompareConfig) -> bool:
    """Whether any task is not one of lm_eval_path's whose items are files of this disk, so may have to be fetched."""
    files = _files(config.lm_eval_path)
    declared = {
        settings["task"]: settings for settings in map(_settings, files) if isinstance(settings.get("task"), str)
    }
    return any(not _on_disk(declared.get(task, {}).get("dataset_path")) for task in config.lm_eval)


def _on_disk(dataset: Any) -> bool:
    return isinstance(dataset, str) and (dataset in _FILE_BUILDERS or Path(dataset).exists())


def _files(path: str | None) -> list[Path]:
    return [] if path is None else sorted(p for p in Path(path).expanduser().rglob("*.yaml") if p.is_file())


def _settings(file: Path) -> dict[str, Any]:
    """A task file's keys over those of the file it includes; what is Python in it is left out."""
    try:
        read = yaml.load(file.read_text(encoding="utf-8"), _WithoutCode)
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UserError(f"{file} does not read as a task of lm-eval: {str(error).splitlines()[0]}; mend it.") from None
    if not isinstance(read, dict):
        return {}
    included = read.get("include")
    return ({} if not isinstance(included, str) else _settings(file.parent / included)) | read


class _WithoutCode(yaml.SafeLoader):
    """Reads lm-eval's `!function module.name` as None."""


_WithoutCode.add_multi_constructor("!", lambda loader, suffix, node: None)


def tasks_hash(path: str) -> str:
    """sha256 over lm_eval_path's files, names and bytes."""
    root = Path(path).expanduser()
    digest = hashlib.sha256()
    for file in sorted(p for p in root.rglob("*") if p.is_file() and "__pycache__" not in p.parts):
        digest.update(f"{file.relative_to(root)}\0{file.stat().st_size}\0".encode() + file.read_bytes())
    return digest.hexdigest()

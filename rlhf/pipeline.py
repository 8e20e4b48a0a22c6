"""Which stages run, in which order, from which parents: skips what is done, resumes what stopped, refuses what differs.

A stage is a module `stages/<name>.py` with `run(context) -> metrics`. Everything round it, folders, parents, manifests,
seeds and logs, is here, once for all stages. Nothing here imports torch before a stage really runs.
"""

from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import hashlib
import importlib
import importlib.metadata
import json
import logging
import os
import platform
import random
import shlex
import shutil
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf import distributed
from rlhf.agreement import check_agreement
from rlhf.allocator import keep_freed_memory
from rlhf.artifacts import (
    StageFolder,
    describe_model,
    disk_full_error,
    finite,
    is_disk_full,
    model_hash,
    refused_by_disk,
    write_text_atomic,
)
from rlhf.config import CHAIN, Config, DataConfig, Device, Float32Matmul, JudgeName, StageName
from rlhf.config_keys import flatten, show
from rlhf.distributed import is_main_process
from rlhf.errors import UserError
from rlhf.evaluation.candidates import FURTHER, candidates_of
from rlhf.evaluation.llm_prompt import load_template
from rlhf.jobs import job_name, reaching
from rlhf.ppo.engines.requirements import require_installed
from rlhf.ppo.reward_fn import load_reward_fn
from rlhf.surroundings import code_version, hardware, package_versions

if TYPE_CHECKING:
    from rlhf.data.records import DataSource
    from rlhf.tracking import Tracker

log = logging.getLogger("rlhf")

_SAMPLING = ("rollout.temperature", "rollout.max_new_tokens", "rollout.batch_size")  # without PPO's rollout.engine
# What decides a stage's result, beside its parents and data. Everything else may change between two starts.
_INPUTS = {
    StageName.pretrain: ("pretrain", "model.architecture", "data", "seed"),
    StageName.sft: ("sft", "model", "data", "seed"),
    StageName.reward: ("reward", *_SAMPLING, "data", "model", "seed"),
    StageName.ppo: ("ppo", "rollout", "data", "model", "seed"),
    StageName.compare: ("compare", "judge", *_SAMPLING, "data", "model.dtype", "seed"),
    StageName.report: ("report", "compare", "judge", *_SAMPLING, "data", "model.dtype", "seed"),
    StageName.self_instruct: ("self_instruct", "model.dtype", "seed"),
}
# Made of finished stages alone, so that another one may take its place without a loss.
_DERIVED = (StageName.compare, StageName.report)
# Paths, which stand for what lies there and are fingerprinted by it; and keys of speed and memory, not of results.
_NOT_INPUTS = (
    "model.path",
    "model.trust_remote_code",
    "model.gradient_checkpointing",
    "data.path",
    "data.prompts_path",
    "data.phrasings",
    "data.streaming",
    "data.workers",
    "data.cache",
    "sft.base",
    "sft.reward_model",
    "sft.micro_batch_size_per_device",
    "reward.policy",
    "reward.micro_batch_size_per_device",
    "ppo.policy",
    "ppo.reward_model",
    "ppo.reward_models",
    "ppo.value_model",
    "ppo.micro_batch_tokens",
    "ppo.limits",
    "ppo.save_every",
    "rollout.cuda_graphs",
    "rollout.gather",
    "rollout.vllm",
    "pretrain.save_every",
    "compare.candidates",
    "compare.benchmark",
    "compare.lm_eval_path",
    "compare.outputs",
    "judge.reward_model",
    "report.runs",
    "judge.llm.url",
    "judge.llm.prompt",
    "judge.llm.parallel",
    "judge.llm.requests_per_minute",
    "judge.llm.timeout_s",
    "judge.llm.retries",
    "judge.llm.input_price",
    "judge.llm.output_price",
    "judge.llm.cache",
    "self_instruct.model",
    "self_instruct.seeds",
    "self_instruct.patience",
    "self_instruct.server.url",
    "self_instruct.server.parallel",
    "self_instruct.server.timeout_s",
    "self_instruct.server.retries",
)
# What a stage's last line shows of its metrics; a comparison prints a table of its own.
_HEADLINES = {
    StageName.pretrain: ("eval/loss",),
    StageName.sft: ("train/loss", "eval/loss"),
    StageName.reward: ("eval/loss", "eval/accuracy", "eval/accuracy_gold"),
    StageName.ppo: ("eval/score", "eval/kl", "eval/gold"),
    StageName.compare: (),
    StageName.report: (),
    StageName.self_instruct: ("self_instruct/instructions", "self_instruct/instances"),
}


@dataclass(frozen=True)
class StageContext:
    """Everything a stage is given."""

    config: Config
    folder: StageFolder
    parents: dict[str, Path]  # base, policy, reward_model, reward_models/<name>, value_model; compare: sft, ppo, ...
    tracker: Tracker
    data: DataSource
    resume: bool  # an earlier attempt with the same inputs did not finish; go on from its latest checkpoint, if any


@dataclass(frozen=True)
class Place:
    """Where a stage lies: in the run, or in the sweep when something that is swept reaches it."""

    run: Path
    swept: tuple[str, ...] = ()  # settings that differ between the jobs of a sweep; none: a run by itself

    def folder(self, stage: StageName) -> StageFolder:
        """Named by what of the sweep reaches the stage: jobs that differ elsewhere share it."""
        job = job_name(reaching(self.swept, stage))
        return StageFolder(self.run / stage.value if job is None else self.run / "sweep" / job / stage.value)

    def candidates(self, stage: StageName, config: Config) -> list[StageFolder]:
        """Where to look for a finished stage, nearest first."""
        folders = [self.folder(stage), StageFolder(self.run / stage.value)]
        if config.run.parents is not None:
            folders.append(StageFolder(Path(config.run.parents) / stage.value))
        return folders


def run(config: Config, swept: tuple[str, ...] = ()) -> None:
    """Runs `config.stage`, or the whole chain. Raises UserError for a mistake; other errors carry where the log is."""
    stages = stages_of(config, swept)
    _check_needs(config, stages)
    distributed.join(config.launch.device, alone=config.zero.stage > 0)
    place = Place(run_folder(config), swept)
    for stage in stages:
        run_stage(config, stage, place)
    if len(stages) > 1 and not swept and is_main_process():
        _say_where(place)


def stages_of(config: Config, swept: Sequence[str] = ()) -> tuple[StageName, ...]:
    """What `config.stage` stands for, in order. Jobs that train policies leave comparing them to the sweep."""
    if config.stage != StageName.all:
        return (config.stage,)
    return tuple(stage for stage in CHAIN if stage != StageName.compare or not reaching(swept, StageName.ppo))


def _check_needs(config: Config, stages: Sequence[StageName]) -> None:
    """UserError now, before any stage of a chain has begun, for what one would find missing when its turn comes."""
    from rlhf.models import require_bitsandbytes

    if {StageName.sft, StageName.reward, StageName.ppo} & set(stages):
        require_bitsandbytes(config.model.quantization)
    if StageName.ppo in stages:
        require_installed(config.rollout)
        if config.ppo.reward_fn is not None:
            load_reward_fn(config.ppo.reward_fn)
    if StageName.compare in stages and config.compare.outputs:
        from rlhf.evaluation import outputs

        outputs.require_files(config.compare.outputs)
    if StageName.compare in stages and config.compare.names_benchmarks:
        from rlhf.evaluation import benchmarks

        benchmarks.require(config.compare)
    if StageName.compare in stages and JudgeName.llm in config.judge.names:
        load_template(config.judge.llm.prompt)


def run_folder(config: Config) -> Path:
    return Path(config.run.root) / config.run.name


def check(config: Config, swept: tuple[str, ...] = (), *, parents: bool = True) -> None:
    """Refuses what can be before anything loads: folders of another config and, unless told not to, missing parents."""
    place = Place(run_folder(config), swept)
    stages = stages_of(config, swept)
    _check_needs(config, stages)
    if parents:
        find_parents(config, stages[0], place)
    for stage in stages:
        _named_parents(config, stage)
        folder = place.folder(stage)
        manifest = folder.manifest
        if manifest is None or stage in _DERIVED or not _holds_work(folder, manifest):
            continue
        changes = _input_changes(manifest, {"config": _stage_config(config, stage)})
        if changes:
            raise _other_config(folder, changes)


def run_stage(config: Config, stage: StageName, place: Place) -> None:
    """One stage in its folder: skipped, resumed, refused or run."""
    folder = place.folder(stage)
    parents = find_parents(config, stage, place)
    run_in_folder(config, stage, folder, parents, wait=bool(place.swept))


def run_in_folder(
    config: Config, stage: StageName, folder: StageFolder, parents: dict[str, Path], *, wait: bool = False
) -> None:
    """Runs `stage` from `parents` in `folder`, unless it finished there from the same inputs.

    wait: for a process that works on it now; else that is a UserError.
    """
    own_seed = config.ppo.seed if stage == StageName.ppo else None
    config = dataclasses.replace(config, stage=stage, seed=config.seed if own_seed is None else own_seed)
    try:
        folder.path.mkdir(parents=True, exist_ok=True)
        with _locked(folder, wait=wait), _logging_to(folder):
            _run_locked(config, stage, folder, parents)
    except OSError as error:
        refused = refused_by_disk(error, folder.path)
        if refused is not None:
            raise refused from error
        raise
    finally:
        if is_main_process():
            for path in (folder.path, folder.path.parent):
                with contextlib.suppress(OSError):  # goes only when nothing was written into it
                    path.rmdir()


def _run_locked(config: Config, stage: StageName, folder: StageFolder, parents: dict[str, Path]) -> None:
    from rlhf.data import load_source

    with tempfile.TemporaryDirectory() as aside:
        # A finished stage that is skipped keeps its own list, and ranks read the same rows: hence aside.
        bad_rows_path = Path(aside) / "bad_rows.jsonl"
        data = config.data if stage != StageName.self_instruct else DataConfig(sandbox=config.data.sandbox)
        source = load_source(data, config.seed, bad_rows_path, show_progress=config.tracker.progress)

        def decide() -> tuple[str, dict[str, Any]]:
            inputs = {
                "config": _stage_config(config, stage),
                "parents": {role: model_hash(path) for role, path in parents.items()},
                "data": _fingerprint(config, stage, source),
                "reward_fn": _reward_fn_hash(config, stage),
                "judge_prompt": _judge_prompt_hash(config, stage),
            }
            return _decide(folder, stage, inputs), inputs

        decision, inputs = distributed.from_main(decide)
        if decision == "skip":
            log.info("%s: finished already (%s), skipped", stage.value, folder.path)
            return
        if bad_rows_path.exists() and is_main_process():
            shutil.copyfile(bad_rows_path, folder.path / bad_rows_path.name)
    _run_now(config, stage, folder, parents, source, inputs, resume=decision == "resume")
    distributed.barrier()  # the next stage reads this one's manifest on every rank


def _fingerprint(config: Config, stage: StageName, source: DataSource) -> dict[str, Any]:
    """Of what the stage reads beside its parents."""
    if stage == StageName.self_instruct:
        from rlhf.self_instruct.seeds import load_seeds, seeds_hash

        return {"seeds_sha256": seeds_hash(load_seeds(config.self_instruct.seeds, config.data.sandbox.world_seed))}
    read = dict(source.fingerprint())
    if stage == StageName.compare and config.compare.names_benchmarks:
        from rlhf.evaluation import benchmarks

        read |= benchmarks.fingerprint(config.compare)
    if stage == StageName.compare and config.compare.outputs:
        from rlhf.evaluation import outputs

        read["outputs"] = outputs.fingerprints(config.compare.outputs)
    return json.loads(json.dumps(finite(read), default=str))


# Parents


def find_parents(config: Config, stage: StageName, place: Place) -> dict[str, Path]:
    """The models a stage starts from, by role. Raises UserError naming the command that makes a missing one."""
    named = _named_parents(config, stage)
    if stage == StageName.pretrain:
        return {}
    if stage == StageName.self_instruct:
        writes_here = config.self_instruct.server.url is None
        return {"model": named.get("model") or _model(config.model.path)} if writes_here else {}
    if stage == StageName.sft:
        base = named.pop("base", None) or _finished(StageName.pretrain, config, place) or _model(config.model.path)
        return {"base": base, **named}
    if stage == StageName.reward:
        return {"policy": named.get("policy") or _needed(StageName.sft, config, place, "reward.policy")}
    if stage == StageName.ppo:
        policy = named.get("policy") or _needed(StageName.sft, config, place, "ppo.policy")
        rewards = {role: path for role, path in named.items() if role.startswith("reward_model")}
        if config.ppo.takes_reward_model and "reward_model" not in named:
            own = _needed(StageName.reward, config, place, "ppo.reward_model")
            rewards = {"reward_model": own, **rewards}
        parents = {"policy": policy, **rewards}
        if config.ppo.has_value_model:
            # A policy has no head for a scalar; as a value model it gets a fresh one of zeros.
            parents["value_model"] = named.get("value_model") or next(iter(rewards.values()), policy)
        return parents
    if stage == StageName.report:
        return _gathered(config, place.run, named)
    return _candidates(config, place, named)


def _gathered(config: Config, run: Path, named: Mapping[str, Path]) -> dict[str, Path]:
    """Every model that a report measures: the policies of the runs, what they started from, and the judge."""
    from rlhf.evaluation.sweeps.gather import gather

    gathered = gather([run, *map(Path, config.report.runs)])
    if not gathered.settings:
        where = ", ".join([str(run), *config.report.runs])
        raise UserError(
            f"There is no finished PPO in {where}; train some with "
            f"`python -m rlhf -m +sweep=kl run.name={config.run.name}`, or name runs with report.runs=[runs/NAME]."
        )
    found = {f"policies/{policy.hash[:12]}": policy.model for policy in gathered.policies}
    for policy in gathered.policies:
        for path in (policy.reference, policy.base, *([policy.reward_model] if policy.reward_model else [])):
            _model(str(path), "report.runs")
            found[f"starts/{path}"] = path
    return found | ({"judge": named["reward_model"]} if "reward_model" in named else {})


def _named_parents(config: Config, stage: StageName) -> dict[str, Path]:
    """The parents that the config names outright, checked to be models when they are folders."""
    keys: dict[StageName, dict[str, str | None]] = {
        StageName.pretrain: {},
        StageName.self_instruct: {"self_instruct.model": config.self_instruct.model},
        StageName.sft: {"sft.base": config.sft.base, "sft.reward_model": config.sft.reward_model},
        StageName.reward: {"reward.policy": config.reward.policy},
        StageName.ppo: {
            "ppo.policy": config.ppo.policy,
            "ppo.reward_model": config.ppo.reward_model,
            **{f"ppo.reward_models/{name}": path for name, path in config.ppo.reward_models.items()},
            "ppo.value_model": config.ppo.value_model,
        },
        StageName.compare: {
            **{f"compare.candidates/{name}": path for name, path in config.compare.candidates.items()},
            "judge.reward_model": config.judge.reward_model,
        },
        StageName.report: {"judge.reward_model": config.judge.reward_model},
    }
    named = {}
    for key, path in keys[stage].items():
        if path is not None:
            typed = key.replace("/", ".")
            named[key.partition(".")[2]] = _model(path, typed)
    return named


def _model(path: str, key: str = "model.path") -> Path:
    from rlhf.models import resolve_model_path

    try:
        return Path(resolve_model_path(path))
    except UserError as error:
        raise UserError(str(error).replace("model.path", key)) from None


def _finished(stage: StageName, config: Config, place: Place) -> Path | None:
    """The model of the nearest finished stage, None when there is none."""
    return next((f.model_dir for f in place.candidates(stage, config) if f.complete), None)


def _needed(stage: StageName, config: Config, place: Place, key: str) -> Path:
    found = _finished(stage, config, place)
    if found is not None:
        return found
    folders = list(dict.fromkeys(str(folder.path) for folder in place.candidates(stage, config)))
    began = next((f for f in place.candidates(stage, config) if f.manifest is not None), None)
    what = f"is unfinished in {began.path}" if began else f"is not in {' or '.join(folders)}"
    raise UserError(
        f"The {stage.value} model that {key.partition('.')[0]} needs {what}; make it with "
        f"`{_command(config, stage)}`, or name a model with {key}=PATH_OR_HUB_ID."
    )


def _command(config: Config, stage: StageName) -> str:
    """The command line that runs `stage` in the same run; the words that chose the data and the model belong to it."""
    words = [f"stage={stage.value}"]
    defaults, chosen = flatten(Config()), flatten(config)
    if chosen["run.root"] != defaults["run.root"]:
        words.append(f"run.root={chosen['run.root']}")
    words.append(f"run.name={chosen['run.name']}")
    if chosen["data.source"] != defaults["data.source"]:
        words += [f"data={chosen['data.source']}", f"data.path={chosen['data.path']}"]
    if chosen["model.path"] != defaults["model.path"]:
        words.append(f"model.path={chosen['model.path']}")
    return "python -m rlhf " + " ".join(shlex.quote(word) for word in words)


def _candidates(config: Config, place: Place, named: Mapping[str, Path]) -> dict[str, Path]:
    """Who is compared: base, sft, ppo as far as they exist, whatever compare.candidates names, and the reward model."""
    compare = config.compare
    found: dict[str, Path] = {}
    sft = next((f for f in place.candidates(StageName.sft, config) if f.complete), None)
    # Without a run's models there are the files of outputs alone, and model.path is nobody's base.
    has_base = sft is not None or not compare.outputs or compare.few_shot > 0 or compare.baseline == "base"
    base = (sft.manifest or {})["parents"]["base"]["path"] if sft is not None else config.model.path
    with contextlib.suppress(UserError):  # the base may have been moved since; it is compared when it is still there
        if has_base:
            found["base"] = _model(str(base))
    for role, stage in (("sft", StageName.sft), ("ppo", StageName.ppo)):
        model = _finished(stage, config, place)
        if model is not None:
            found[role] = model
    found.update(named)
    needs_sft = compare.best_of or (compare.baseline == StageName.sft.value and "sft" not in compare.outputs)
    if needs_sft and "sft" not in found and f"{FURTHER}sft" not in found:
        _needed(StageName.sft, config, place, "compare.candidates.sft")
    if "reward_model" not in found:
        reward_model = _finished(StageName.reward, config, place)
        if reward_model is not None:
            found["reward_model"] = reward_model
        elif compare.best_of or JudgeName.reward_model in config.judge.names:
            _needed(StageName.reward, config, place, "judge.reward_model")
    candidates_of(found, config)
    return found


def _reward_fn_hash(config: Config, stage: StageName) -> str | None:
    """Of the code that scores PPO's responses; None without any. Its name is in the config."""
    if stage != StageName.ppo or config.ppo.reward_fn is None:
        return None
    return load_reward_fn(config.ppo.reward_fn).source_hash


def _judge_prompt_hash(config: Config, stage: StageName) -> str | None:
    """Of the words that an LLM judge is asked with; None without one."""
    if stage != StageName.compare or JudgeName.llm not in config.judge.names:
        return None
    return hashlib.sha256(load_template(config.judge.llm.prompt).encode()).hexdigest()


def _lasting(path: Path) -> str:
    """A folder's absolute path, which means the same from everywhere; a hub id as it is."""
    return str(path.absolute() if path.is_dir() else path)


# Skip, resume, refuse


def _stage_config(config: Config, stage: StageName) -> dict[str, Any]:
    flat = flatten(config)
    return {
        key: value
        for key, value in flat.items()
        if any(key == node or key.startswith(f"{node}.") for node in _INPUTS[stage])
        and not any(key == other or key.startswith(f"{other}.") for other in _NOT_INPUTS)
        and (not key.startswith("model.architecture.") or stage == StageName.pretrain)
    }


def _decide(folder: StageFolder, stage: StageName, inputs: Mapping[str, Any]) -> str:
    """ "run", "skip" or "resume"; UserError when the folder holds work from other inputs."""
    manifest = folder.manifest
    if manifest is None:
        return "run"
    changes = _input_changes(manifest, inputs)
    if not changes:
        return "skip" if manifest["status"] == "complete" else "resume"
    if stage not in _DERIVED and _holds_work(folder, manifest):
        raise _other_config(folder, changes)
    if stage != StageName.report:  # which gathers more each time, with all it has said before in it
        _move_aside(folder)
    return "run"


def _holds_work(folder: StageFolder, manifest: Mapping[str, Any]) -> bool:
    grown = folder.path / "rounds.jsonl"  # of self_instruct, which goes on from its rounds
    begun = folder.has_checkpoints or (grown.exists() and grown.stat().st_size > 0)
    return manifest.get("status") == "complete" or begun


def _input_changes(manifest: Mapping[str, Any], inputs: Mapping[str, Any]) -> list[str]:
    """What differs between the inputs a manifest names and `inputs`, which may be a part of all of them."""
    parents = {role: parent["hash"] for role, parent in manifest.get("parents", {}).items()}
    defaults = flatten(Config())  # a key that came with a later version had its default's meaning before
    before = {key: defaults[key] for key in inputs["config"] if key in defaults} | manifest.get("config", {})
    changes = [
        f"{key} {_short(before.get(key))} -> {_short(inputs['config'].get(key))}"
        for key in {**before, **inputs["config"]}
        if before.get(key) != inputs["config"].get(key)
    ]
    if "parents" in inputs:
        changes += [f"another {role} model" for role in _differing(parents, inputs["parents"])]
    if "data" in inputs and manifest.get("data") != inputs["data"]:
        changes.append("other data")
    if "reward_fn" in inputs and manifest.get("reward_fn") != inputs["reward_fn"]:
        changes.append("other code behind ppo.reward_fn")
    if "judge_prompt" in inputs and manifest.get("judge_prompt") != inputs["judge_prompt"]:
        changes.append("other words in judge.llm.prompt")
    return changes


def _differing(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    return [key for key in {**old, **new} if old.get(key) != new.get(key)]


def _other_config(folder: StageFolder, changes: Sequence[str]) -> UserError:
    shown = ", ".join(changes[:6]) + (f" and {len(changes) - 6} more" if len(changes) > 6 else "")
    return UserError(
        f"{folder.path} belongs to another config ({shown}); choose a new run with run.name=NAME, adding "
        f"run.parents={folder.path.parent} to start from the stages that are finished there."
    )


def _short(value: Any) -> str:
    text = show(value)
    return text if len(text) <= 40 else f"{text[:37]}..."


def _move_aside(folder: StageFolder) -> None:
    number = 1
    while (old := folder.path.with_name(f"{folder.path.name}-{number}")).exists():
        number += 1
    log.info("%s: made from other inputs; the old folder is now %s", folder.path, old)
    handlers = [h for h in log.handlers if isinstance(h, logging.FileHandler)]
    os.rename(folder.path, old)
    folder.path.mkdir()
    for handler in handlers:  # the log of this attempt goes to the new folder
        handler.close()


# Running


def _run_now(
    config: Config,
    stage: StageName,
    folder: StageFolder,
    parents: dict[str, Path],
    source: DataSource,
    inputs: dict[str, Any],
    *,
    resume: bool,
) -> None:
    started = time.monotonic()
    before = (folder.manifest or {}).get("wall_s", 0.0) if resume else 0.0
    resolved = _nested(flatten(config))
    record = folder.write_manifest if is_main_process() else _record_nothing
    if is_main_process():
        _write_config(folder, resolved)
    record(
        stage=stage.value,
        status="running",
        config=inputs["config"],
        parents={role: {"path": _lasting(path), "hash": inputs["parents"][role]} for role, path in parents.items()},
        data=inputs["data"],
        reward_fn=inputs["reward_fn"],
        judge_prompt=inputs["judge_prompt"],
        seed=config.seed,
        code=code_version(),
        packages=package_versions(),
        started=_now(),
        finished=None,
        error=None,
    )
    log.info("%s: %s in %s", stage.value, "resumes" if resume else "starts", folder.path)
    try:
        prepare_torch(config)
        agreement = check_agreement(config, stage, parents)
        seed_everything(config.seed)
        record(**agreement, hardware=hardware())
        metrics = _call_stage(config, stage, folder, parents, source, resolved, resume=resume)
        wall_s = before + time.monotonic() - started
        updates = {"model": describe_model(folder.model_dir)} if is_main_process() and folder.model_dir.is_dir() else {}
        record(status="complete", metrics=dict(metrics), finished=_now(), wall_s=round(wall_s, 2), **updates)
    except BaseException as error:
        if is_main_process():
            _note_failure(folder, error, before + time.monotonic() - started)
        if isinstance(error, Exception) and not isinstance(error, UserError):
            if is_disk_full(error, folder.path):
                raise disk_full_error(folder.path) from error
            error.add_note(f"The log is {folder.log_path}; the same command resumes this stage.")
        raise
    log.info("%s: done in %s%s", stage.value, _duration(wall_s), _headline(stage, metrics))


def _record_nothing(**_: Any) -> None:
    """In place of `StageFolder.write_manifest` on ranks but the first."""


def _call_stage(
    config: Config,
    stage: StageName,
    folder: StageFolder,
    parents: dict[str, Path],
    source: DataSource,
    resolved: dict[str, Any],
    *,
    resume: bool,
) -> dict[str, float]:
    import datasets

    from rlhf.tracking import Tracker

    datasets.disable_progress_bars()  # but for the one of data.encoding
    tracker = Tracker(folder.path, config.tracker, stage.value, config.run.name, resolved)
    try:
        context = StageContext(config, folder, dict(parents), tracker, source, resume)
        return importlib.import_module(f"stages.{stage.value}").run(context)
    finally:
        tracker.close()


def _note_failure(folder: StageFolder, error: BaseException, wall_s: float) -> None:
    if not isinstance(error, UserError | KeyboardInterrupt):
        log.debug("%s", traceback.format_exc())
    what = "interrupted" if isinstance(error, KeyboardInterrupt) else f"{type(error).__name__}: {error}"
    log.debug("failed: %s", what)
    with contextlib.suppress(OSError, UserError):  # the disk may be what failed
        folder.write_manifest(status="failed", error=what, finished=_now(), wall_s=round(wall_s, 2))


def seed_everything(seed: int) -> None:
    """Seeds Python, NumPy and torch, on every device."""
    import numpy
    import torch

    random.seed(seed)
    numpy.random.seed(seed % 2**32)
    torch.manual_seed(seed)


def prepare_torch(config: Config) -> None:
    """Device, threads, precision. Raises UserError when CUDA is asked for and absent."""
    import torch

    if config.launch.device == Device.cuda and not torch.cuda.is_available():
        raise UserError("launch.device=cuda finds no CUDA device; use launch.device=auto or cpu.")
    if config.launch.threads is not None:
        torch.set_num_threads(config.launch.threads)
    on_cpu = config.launch.device == Device.cpu or not torch.cuda.is_available()
    if on_cpu and config.rollout.cuda_graphs:
        raise UserError("rollout.cuda_graphs=true finds no CUDA device; set rollout.cuda_graphs=false.")
    if on_cpu:
        os.environ.setdefault("DS_ACCELERATOR", "cpu")  # else DeepSpeed warns that it had to find out
        keep_freed_memory()
    precision = config.launch.float32_matmul
    if precision == Float32Matmul.auto:
        # Medium routes a CPU's float32 products to oneDNN: 1.6x faster, and the logits agree to 8e-6.
        precision = Float32Matmul.medium if on_cpu else Float32Matmul.highest
    torch.set_float32_matmul_precision(precision.value)


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


def _nested(flat: Mapping[str, Any]) -> dict[str, Any]:
    tree: dict[str, Any] = {}
    for name, value in flat.items():
        *nodes, leaf = name.split(".")
        here = tree
        for node in nodes:
            here = here.setdefault(node, {})
        here[leaf] = value
    return tree


def _write_config(folder: StageFolder, resolved: Mapping[str, Any]) -> None:
    import yaml

    write_text_atomic(folder.config_path, yaml.safe_dump(resolved, sort_keys=False, allow_unicode=True))


# Words for the terminal


@contextlib.contextmanager
def _logging_to(folder: StageFolder) -> Iterator[None]:
    """What `log` says goes to the terminal and to log.txt; debug messages, such as tracebacks, to log.txt alone."""
    if not is_main_process():
        yield
        return
    terminal = logging.StreamHandler(sys.stdout)
    terminal.setLevel(logging.INFO)
    file = logging.FileHandler(folder.log_path, encoding="utf-8", delay=True)
    file.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(message)s"))
    log.setLevel(logging.DEBUG)
    log.propagate = False
    raises, logging.raiseExceptions = logging.raiseExceptions, False  # a full disk must not print through the log
    log.addHandler(terminal)
    log.addHandler(file)
    try:
        yield
    finally:
        log.removeHandler(terminal)
        log.removeHandler(file)
        file.close()
        logging.raiseExceptions = raises


def _headline(stage: StageName, metrics: Mapping[str, float]) -> str:
    shown = ", ".join(f"{name} {metrics[name]:.4g}" for name in _HEADLINES[stage] if metrics.get(name) is not None)
    return f": {shown}" if shown else ""


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{seconds:.1f} s"


def _say_where(place: Place) -> None:
    print(f"\nEverything is in {place.run}/:")
    for stage, name in ((StageName.sft, "model"), (StageName.reward, "model"), (StageName.ppo, "model")):
        print(f"  {stage.value + ' model':<14}{place.folder(stage).path / name}")
    report = place.folder(StageName.compare).path / "report.html"
    if report.exists():
        print(f"  {'report':<14}{report}")


# One folder, one process at a time


@contextlib.contextmanager
def _locked(folder: StageFolder, *, wait: bool) -> Iterator[None]:
    """Inside, no other process works on this stage; the lock dies with its owner. Raises UserError where one does.

    wait: wait for it instead, so that jobs of a parallel sweep train a shared stage once.
    """
    with contextlib.ExitStack() as held:
        distributed.from_main(lambda: _take(folder.path.parent / f".{folder.path.name}.lock", folder, held, wait))
        yield


def _take(path: Path, folder: StageFolder, held: contextlib.ExitStack, wait: bool) -> None:
    while True:
        file = held.enter_context(path.open("a+"))
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            file.seek(0)
            owner = file.read().strip() or "another process"
            if not wait:
                raise UserError(
                    f"{folder.path} is being worked on by {owner}; wait until it is done, or choose another run.name."
                ) from None
            print(f"{folder.path}: {owner} is at work on it; waiting", flush=True)
            fcntl.flock(file, fcntl.LOCK_EX)
        if path.exists() and os.path.samestat(path.stat(), os.fstat(file.fileno())):
            break
        # Who held it has removed it; what counts is the file that stands there now.
    file.truncate(0)
    file.write(f"process {os.getpid()} on {platform.node()}\n")
    file.flush()
    held.callback(path.unlink, missing_ok=True)

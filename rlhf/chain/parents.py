"""The models that each stage starts from: named by the config, or the nearest finished ones of the chain."""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from pathlib import Path
from typing import Any

from rlhf.chain.roles import check_role
from rlhf.config import Config, JudgeName, StageName
from rlhf.config.keys import flatten
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder


@dataclass(frozen=True)
class Search:
    """What a stage looks for its parents with."""

    config: Config
    run: Path
    folders: Callable[[StageName], Sequence[StageFolder]]  # where a stage of this run may be, nearest first
    named: Mapping[str, Path]  # what the config names outright, by role

    def finished_folder(self, stage: StageName) -> StageFolder | None:
        """The nearest finished one, None when there is none."""
        return next((folder for folder in self.folders(stage) if folder.complete), None)

    def finished(self, stage: StageName) -> Path | None:
        """The model of the nearest finished one, None when there is none."""
        folder = self.finished_folder(stage)
        if folder is None:
            return None
        problem = folder.model_problem() if stage not in self.config.run.again else None
        if problem is not None:
            raise UserError(
                f"{folder.path} is finished, and {problem}; put it back as it was, or make it again from the newest "
                f"checkpoint with `{command(self.config, stage)} run.again=[{stage.value}]`."
            )
        return folder.model_dir

    def needed(self, stage: StageName, key: str) -> Path:
        """The same; UserError with the command that makes it, and the key that names another, when there is none."""
        found = self.finished(stage)
        if found is not None:
            return found
        folders = self.folders(stage)
        began = next((folder for folder in folders if folder.manifest is not None), None)
        where = " or ".join(dict.fromkeys(str(folder.path) for folder in folders))
        what = f"is unfinished in {began.path}" if began else f"is not in {where}"
        raise UserError(
            f"The {stage.value} model that {key.partition('.')[0]} needs {what}; make it with "
            f"`{command(self.config, stage)}`, or name a model with {key}=PATH_OR_HUB_ID."
        )


def named_parents(config: Config, keys: Sequence[str]) -> dict[str, Path]:
    """The parents that the config names outright, by role, checked to be models when they are folders."""
    found = {}
    for key in keys:
        value: Any = reduce(getattr, key.split("."), config)
        paths = {f"{key}/{name}": path for name, path in value.items()} if isinstance(value, dict) else {key: value}
        for name, path in paths.items():
            if path is not None:
                found[name.partition(".")[2]] = model_at(path, name.replace("/", "."))
                check_role(found[name.partition(".")[2]], name)
    return found


def model_at(path: str, key: str = "model.path") -> Path:
    """The folder or hub id of a model; UserError that tells of `key`, which names it."""
    from rlhf.models.folders import resolve_model_path

    try:
        return Path(resolve_model_path(path))
    except UserError as error:
        raise UserError(str(error).replace("model.path", key)) from None


def command(config: Config, stage: StageName) -> str:
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


# Of each stage


def none(search: Search) -> dict[str, Path]:
    return {}


def of_self_instruct(search: Search) -> dict[str, Path]:
    """The model that writes, unless a server does."""
    if search.config.self_instruct.server.url is not None:
        return {}
    return {"model": search.named.get("model") or model_at(search.config.model.path)}


def of_sft(search: Search) -> dict[str, Path]:
    base = search.named.get("base") or search.finished(StageName.pretrain) or model_at(search.config.model.path)
    return {"base": base, **search.named}


def of_reward(search: Search) -> dict[str, Path]:
    return {"policy": search.named.get("policy") or search.needed(StageName.sft, "reward.policy")}


def of_ppo(search: Search) -> dict[str, Path]:
    """The policy, the reward models, and a value model where the advantages need one."""
    ppo, named = search.config.ppo, search.named
    policy = named.get("policy") or search.needed(StageName.sft, "ppo.policy")
    rewards = {role: path for role, path in named.items() if role.startswith("reward_model")}
    if ppo.takes_reward_model and "reward_model" not in named:
        rewards = {"reward_model": search.needed(StageName.reward, "ppo.reward_model"), **rewards}
    parents = {"policy": policy, **rewards}
    if ppo.has_value_model:
        # A policy has no head for a scalar; as a value model it gets a fresh one of zeros.
        parents["value_model"] = named.get("value_model") or next(iter(rewards.values()), policy)
    return parents


def of_compare(search: Search) -> dict[str, Path]:
    """Who is compared: base, sft, ppo as far as they exist, whatever compare.candidates names, and the reward model."""
    from rlhf.evaluation.answering.candidates import FURTHER, candidates_of

    config, compare = search.config, search.config.compare
    found: dict[str, Path] = {}
    sft = search.finished_folder(StageName.sft)
    # Without a run's models there are the files of outputs alone, and model.path is nobody's base.
    has_base = sft is not None or not compare.outputs or compare.few_shot > 0 or compare.baseline == "base"
    base = (sft.manifest or {})["parents"]["base"]["path"] if sft is not None else config.model.path
    with contextlib.suppress(UserError):  # the base may have been moved since; it is compared when it is still there
        if has_base:
            found["base"] = model_at(str(base))
    for role, stage in (("sft", StageName.sft), ("ppo", StageName.ppo)):
        model = search.finished(stage)
        if model is not None:
            found[role] = model
    found.update(search.named)
    needs_sft = compare.best_of or (compare.baseline == StageName.sft.value and "sft" not in compare.outputs)
    if needs_sft and "sft" not in found and f"{FURTHER}sft" not in found:
        search.needed(StageName.sft, "compare.candidates.sft")
    if "reward_model" not in found:
        reward_model = search.finished(StageName.reward)
        if reward_model is not None:
            found["reward_model"] = reward_model
        elif compare.best_of or JudgeName.reward_model in config.judge.names:
            search.needed(StageName.reward, "judge.reward_model")
    candidates_of(found, config)
    return found


def of_report(search: Search) -> dict[str, Path]:
    """Every model that a report measures: the policies of the runs, what they started from, and the judge."""
    from rlhf.evaluation.sweeps.gather import gather

    config = search.config
    gathered = gather([search.run, *map(Path, config.report.runs)])
    if not gathered.settings:
        where = ", ".join([str(search.run), *config.report.runs])
        raise UserError(
            f"There is no finished PPO in {where}; train some with "
            f"`python -m rlhf -m +sweep=kl run.name={config.run.name}`, or name runs with report.runs=[runs/NAME]."
        )
    found = {f"policies/{policy.hash[:12]}": policy.model for policy in gathered.policies}
    for policy in gathered.policies:
        for path in (policy.reference, policy.base, *([policy.reward_model] if policy.reward_model else [])):
            model_at(str(path), "report.runs")
            found[f"starts/{path}"] = path
    return found | ({"judge": search.named["reward_model"]} if "reward_model" in search.named else {})

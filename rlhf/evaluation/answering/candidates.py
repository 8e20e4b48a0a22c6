"""Who is compared: models, a model that is shown demonstrations, the best of several samples, files of outputs."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import Enum
from pathlib import Path
from typing import Any

import yaml

from rlhf.config import Config, StageName
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder

CHAIN = ("base", "sft", "ppo")  # candidates that the run itself makes, by their keys among the parents
FURTHER = "candidates/"
FEW_SHOT = "base-few-shot"


class How(Enum):
    """How its answer to a prompt comes about."""

    sample = "sample"  # one response of a model
    few_shot = "few_shot"  # the same, after `count` demonstrations
    best_of = "best_of"  # of `count` responses, the one that the reward model scores highest
    outputs = "outputs"  # it stands in a file


@dataclass(frozen=True)
class Candidate:
    name: str
    path: str  # of its model, a folder or hub id; of outputs FILE or FILE@NAME
    how: How = How.sample
    count: int = 1


def candidates_of(parents: Mapping[str, Path], config: Config) -> dict[str, Candidate]:
    """Candidates by name: the run's own, a sweep's, compare.candidates and compare.outputs.

    Raises UserError when a name is taken twice, the baseline is none of them, or a model that the config needs is not
    there.
    """
    compare = config.compare
    named = {**compare.candidates, **{k.removeprefix(FURTHER): str(p) for k, p in parents.items() if _is_further(k)}}
    found: dict[str, Candidate] = {}

    def add(candidate: Candidate, key: str) -> None:
        before = found.setdefault(candidate.name, candidate)
        if before != candidate:
            raise UserError(
                f"{key} names {candidate.name}, which is {before.path} of this run already; choose another name."
            )

    for name in CHAIN:
        if name in parents:
            add(Candidate(name, str(parents[name])), "compare.candidates")
        elif name in named:
            add(Candidate(name, named[name]), "compare.candidates")
        if name == "base" and compare.few_shot > 0:
            path = _model(found, "base", "few_shot")
            add(Candidate(FEW_SHOT, path, How.few_shot, compare.few_shot), "compare.few_shot")
        if name == "sft":
            for count in sorted(compare.best_of):
                path = _model(found, "sft", "best_of")
                add(Candidate(f"sft-best-of-{count}", path, How.best_of, count), "compare.best_of")
    for name, path in named.items():
        add(Candidate(name, path), "compare.candidates")
    for name, path in compare.outputs.items():
        add(Candidate(name, path, How.outputs), "compare.outputs")
    if compare.baseline not in found:
        raise UserError(
            f"compare.baseline={compare.baseline} is none of the candidates, which are {', '.join(found) or 'none yet'}"
            "; choose one of them, or add it to compare.candidates."
        )
    return found


def _is_further(key: str) -> bool:
    return key.startswith(FURTHER)


def _model(found: Mapping[str, Candidate], name: str, key: str) -> str:
    if name not in found:
        raise UserError(
            f"compare.{key} needs the model {name}, and there is none; name it with compare.candidates.{name}="
            f"PATH_OR_HUB_ID, or leave compare.{key} out."
        )
    return found[name].path


def describe(candidate: Candidate) -> dict[str, Any]:
    """What report.json says of a candidate beside its scores.

    method:            base, base-few-shot, sft, ppo, ppo-ptx, best-of-n, outputs or other.
    parameters:        weights by the model's config, tied ones once; None for outputs, and without a config at hand.
    kl_coef, ptx_coef: that PPO trained it with; None where this project did not.
    seed:              of the stage that made the model; None where none of ours did.
    """
    if candidate.how == How.outputs:
        return {"method": "outputs", "parameters": None, "kl_coef": None, "ptx_coef": None, "seed": None}
    folder = Path(candidate.path)
    manifest = (StageFolder(folder.parent).manifest if folder.name == "model" else None) or {}
    ppo = _ppo_config(folder.parent) if manifest.get("stage") == StageName.ppo.value else None
    return {
        "method": _method(candidate, manifest, ppo),
        "parameters": parameters(candidate.path),
        "kl_coef": None if ppo is None else float(ppo["kl"]["coef"]),
        "ptx_coef": None if ppo is None else float(ppo["ptx"]["coef"]),
        "seed": manifest.get("seed"),
    }


def _ppo_config(folder: Path) -> dict[str, Any] | None:
    path = folder / "config.yaml"
    return yaml.safe_load(path.read_text(encoding="utf-8"))["ppo"] if path.exists() else None


def _method(candidate: Candidate, manifest: Mapping[str, Any], ppo: Mapping[str, Any] | None) -> str:
    if candidate.how == How.few_shot:
        return FEW_SHOT
    if candidate.how == How.best_of:
        return "best-of-n"
    if ppo is not None and ppo["ptx"]["coef"] > 0:
        return "ppo-ptx"
    made_by = {StageName.pretrain.value: "base", StageName.sft.value: "sft", StageName.ppo.value: "ppo"}
    return made_by.get(manifest.get("stage", ""), candidate.name if candidate.name in CHAIN else "other")


def parameters(path: str) -> int | None:
    """Weights of a causal language model by its config, tied ones once; None where none is at hand or known."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    try:
        config = AutoConfig.from_pretrained(path, local_files_only=True)
        with torch.device("meta"):
            model = AutoModelForCausalLM.from_config(config)
    except (OSError, ValueError):  # no such folder or download, an architecture that transformers has not
        return None
    return sum(parameter.numel() for parameter in model.parameters())

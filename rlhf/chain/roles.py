"""Whether a folder that a key names can play the role it is named for: a language model, or one that scores."""

from __future__ import annotations

import json
import struct
from pathlib import Path

from rlhf.config import StageName
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder

# Keys whose model scores responses. Value models and reward models may start as either: they get a head if need be.
_SCORERS = ("ppo.reward_model", "ppo.reward_models", "judge.reward_model", "sft.reward_model")
_EITHER = ("ppo.value_model", "reward.policy")


def check_role(path: Path, key: str) -> None:
    """UserError where the model at `path`, which the config names by `key`, is of the other kind. Loads nothing.

    A hub id, and a folder that does not say what it is, are known when they load.
    """
    node = key.partition("/")[0]
    if node in _EITHER or not path.is_dir():
        return
    scores, wanted = has_score_head(path), node in _SCORERS
    if scores is None or scores == wanted:
        return
    typed = key.replace("/", ".")
    is_what = "scores responses and writes none" if scores else "writes text and has no head for a score"
    raise UserError(f"{typed} {path} {is_what}{_made_by(path)}; {_advice(path, typed, wanted)}")


def _made_by(path: Path) -> str:
    manifest = (StageFolder(path.parent).manifest if path.name == "model" else None) or {}
    return f" (stage={manifest['stage']} made it)" if "stage" in manifest else ""


def _advice(path: Path, key: str, wanted: bool) -> str:
    """The model of the right kind in the same run, where there is one."""
    names = (StageName.reward,) if wanted else (StageName.ppo, StageName.sft, StageName.pretrain)
    for name in names if path.name == "model" else ():
        sibling = path.parent.parent / name.value / "model"
        if sibling != path and has_score_head(sibling) is wanted:
            return f"did you mean {key}={sibling}?"
    how = "train one with stage=reward" if wanted else "name the model that it was trained from, or another"
    return f"{how}, and name it with {key}=PATH."


def has_score_head(path: Path) -> bool | None:
    """Whether a model's folder holds a head for scores, by its config, else by its weights; None: neither says."""
    try:
        architectures = json.loads((path / "config.json").read_text(encoding="utf-8")).get("architectures") or []
    except (OSError, ValueError, AttributeError):
        architectures = []
    if any(name.endswith("ForSequenceClassification") for name in architectures):
        return True
    if any(name.endswith(("ForCausalLM", "LMHeadModel")) for name in architectures):
        return False
    names = [name for file in path.glob("*.safetensors") for name in _weight_names(file)]
    return any(name.endswith("score.weight") for name in names) if names else None


def _weight_names(file: Path) -> list[str]:
    """Of a safetensors file: its header is JSON behind eight bytes that say how long it is."""
    try:
        with file.open("rb") as opened:
            (length,) = struct.unpack("<Q", opened.read(8))
            header = json.loads(opened.read(min(length, 1 << 26)))
    except (OSError, ValueError, struct.error):
        return []
    return [name for name in header if name != "__metadata__"]

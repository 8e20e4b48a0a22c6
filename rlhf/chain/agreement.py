"""Whether models that meet in a stage were given the same text in the same tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rlhf.chain.stage import Stage
from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.runtime.folder import StageFolder


def check_agreement(config: Config, stage: Stage, parents: Mapping[str, Path]) -> dict[str, Any]:
    """The policy's tokenizer and chat-template hashes, for the manifest; {} for stages without a policy.

    Raises UserError when a reward or value model was trained on other tokens or another layout of the same text, so
    that its scores would mean nothing, or a model on another layout than data.template now gives it.
    """
    for name, path in parents.items():
        typed = stage.prompted_as(name)
        if typed is not None:
            _check_layout(path, typed, config)
    role = stage.tokens_of
    if role is None:
        return {}
    own = tokenizer_fingerprint(parents[role], config)
    for other, path in parents.items():
        if not other.startswith(("reward_model", "value_model")):
            continue
        manifest = _manifest_of(path)
        theirs = {**tokenizer_fingerprint(path, config), **{key: manifest[key] for key in own if manifest.get(key)}}
        for key, what in (("tokenizer_hash", "tokenizer"), ("template_hash", "chat template")):
            if own[key] != theirs[key]:
                node, typed = stage.name.value, other.replace("/", ".")
                raise UserError(
                    f"{node}.{typed} {path} was trained with another {what} than the {role} {parents[role]}; name one "
                    f"that belongs to it with {node}.{typed}=PATH, or train one with "
                    f"`python -m rlhf stage=reward run.name=NAME reward.policy={parents[role]}`."
                )
    return own


def _manifest_of(model: Path) -> Mapping[str, Any]:
    """Of the stage that made a model; {} where none did."""
    return (StageFolder(model.parent).manifest if model.name == "model" else None) or {}


def _check_layout(model: Path, name: str, config: Config) -> None:
    trained = _manifest_of(model).get("template_hash")
    if trained and trained != tokenizer_fingerprint(model, config)["template_hash"]:
        before = (_manifest_of(model).get("config") or {}).get("data.template")
        raise UserError(
            f"{name} {model} was trained with another chat template than data.template={config.data.template.value} "
            f"gives it now, so it would read prompts it does not know; set data.template={before}, as then."
        )


def tokenizer_fingerprint(path: Path, config: Config) -> dict[str, str]:
    """Hashes of a model's vocabulary and of the layout in which it is given conversations."""
    from rlhf.data.templates import ChatTemplate
    from rlhf.models.tokenizers import load_tokenizer

    tokenizer = load_tokenizer(str(path), trust_remote_code=config.model.trust_remote_code)
    template = ChatTemplate(tokenizer, config.data.template)  # which may choose another end token
    vocabulary = [sorted(tokenizer.get_vocab().items()), tokenizer.eos_token_id]
    return {
        "tokenizer_hash": hashlib.sha256(json.dumps(vocabulary).encode()).hexdigest(),
        "template_hash": template.hash,
    }

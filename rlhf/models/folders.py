"""Which folder or hub id a path names, and whether it holds a whole model."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from rlhf.errors import UserError

if TYPE_CHECKING:
    pass


BUILTIN_PREFIX = "builtin:"


def resolve_model_path(path: str) -> str:
    """The folder or hub id that `path` names; a local folder is checked to hold a config and all its weights.

    "builtin:sandbox-m" names a folder inside this package. What is neither builtin nor on disk and looks like a hub id
    ("gpt2", "org/name") is returned as it is. Raises UserError otherwise.
    """
    if path.startswith(BUILTIN_PREFIX):
        root = Path(__file__).parents[1] / "sandbox" / "models"
        name = path.removeprefix(BUILTIN_PREFIX)
        folder = root / name
        if not folder.is_dir():
            names = ", ".join(f"builtin:{p.name}" for p in sorted(root.glob("*")) if p.is_dir()) or "none"
            raise UserError(f"There is no {path}; this package has {names}. Change model.path.")
        _check_model_folder(folder)
        return str(folder)
    folder = Path(path).expanduser()
    if folder.is_dir():
        _check_model_folder(folder)
        return str(folder)
    looks_like_hub_id = path.count("/") <= 1 and not path.startswith((".", "/", "~")) and not path.endswith("/")
    if path == "" or not looks_like_hub_id or folder.exists():
        raise UserError(f"{path!r} is no model folder; set model.path to a folder with config.json, or to a hub id.")
    return path


def _check_model_folder(folder: Path) -> None:
    if not (folder / "config.json").is_file():
        adapter = (folder / "adapter_config.json").is_file()
        what = "only LoRA adapters; merge them into their base model first" if adapter else "no config.json"
        raise UserError(f"The model folder {folder} holds {what}; point model.path at a whole model.")
    for index in sorted(folder.glob("*.index.json")):
        shards = set(json.loads(index.read_text())["weight_map"].values())
        missing = sorted(shard for shard in shards if not (folder / shard).is_file())
        if missing:
            raise UserError(f"The model folder {folder} lacks {missing[0]}, which {index.name} names; copy it again.")
    if not any(folder.glob("*.safetensors")) and not any(folder.glob("pytorch_model*.bin")):
        raise UserError(
            f"The model folder {folder} has a config.json but no weights; it needs model.safetensors (or another "
            "*.safetensors). Point the setting that names it at a finished model."
        )


def reason(error: BaseException) -> str:
    """The first line of what a library says when something does not load, or what to do about it."""
    text = str(error)
    if "trust_remote_code" in text:
        return "it ships Python code of its own; set model.trust_remote_code=true if you know its author."
    return next((line.strip() for line in text.splitlines() if line.strip()), type(error).__name__)

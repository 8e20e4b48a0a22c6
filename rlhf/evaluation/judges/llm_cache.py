"""Answers of a language model on disk, by what it was asked: a comparison that was killed asks nothing twice."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rlhf.data.store import cache_folder
from rlhf.errors import UserError
from rlhf.runtime.files import write_text_atomic
from rlhf.runtime.openai_server import Answer


def key_of(body: Mapping[str, Any]) -> str:
    """sha256 of a request: the model's name, the messages, the sampling settings. Where the server is plays no part."""
    return hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()


class LLMCache:
    """A file an answer, in place whole or not at all as soon as it has come; threads and processes may share a folder.

    folder: judge.llm.cache; None: llm_judge/ in the user's cache. Raises UserError when it cannot be written.
    """

    def __init__(self, folder: str | None) -> None:
        self.folder = Path(folder).expanduser() if folder is not None else cache_folder(None) / "llm_judge"
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from None
        if not os.access(self.folder, os.W_OK):
            raise self._unwritable(PermissionError(13, "Permission denied"))

    @property
    def empty(self) -> bool:
        return next(self.folder.iterdir(), None) is None

    def find(self, key: str) -> Answer | None:
        """The answer kept under `key`; None where there is none, or a file that is damaged."""
        try:
            return Answer(**json.loads(self._path(key).read_text(encoding="utf-8"))["answer"])
        except (OSError, ValueError, LookupError, TypeError):
            return None

    def keep(self, key: str, body: Mapping[str, Any], answer: Answer) -> None:
        try:
            write_text_atomic(self._path(key), json.dumps({"request": body, "answer": asdict(answer)}, indent=2) + "\n")
        except OSError as error:
            raise self._unwritable(error) from None

    def _path(self, key: str) -> Path:
        return self.folder / key[:2] / f"{key}.json"

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(f"{self.folder} cannot be written ({error.strerror}); set judge.llm.cache to another folder.")

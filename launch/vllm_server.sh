#!/usr/bin/env bash
# The server of rollout=vllm_server: launch/vllm_server.sh [--port 8000 --dtype bfloat16 ...] MODEL_FOLDER
# MODEL_FOLDER has the policy's architecture and vocabulary; its weights are replaced before every rollout. The server
# obeys whoever reaches its port (VLLM_SERVER_DEV_MODE), so it listens on this machine alone unless --host says otherwise.
set -euo pipefail
export VLLM_SERVER_DEV_MODE=1 VLLM_NO_USAGE_STATS=1
exec "${VLLM:-vllm}" serve --host 127.0.0.1 --generation-config vllm --logprobs-mode processed_logprobs "$@"

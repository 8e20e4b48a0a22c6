#!/usr/bin/env bash
# GPUS processes on each of NODES machines, by torchrun; the same line on every machine:
#   NODES=2 HOST=10.0.0.1:29500 launch/torchrun.sh stage=ppo zero=2 run.name=two
# HOST is the first machine, and a port that is free there; LOCAL_ADDR is this one's address, where its name does not lead
# the others to it. After SIGTERM ranks have GRACE seconds to finish their step and save it; one that fails ends the
# others, which are killed after as long if they hang.
set -euo pipefail
where=()
if [[ -n "${LOCAL_ADDR:-}" ]]; then
    leads=0
    [[ "${HOST:-}" == "$LOCAL_ADDR":* ]] && leads=1
    where=(--local-addr "$LOCAL_ADDR" --rdzv-conf "is_host=$leads")
fi
exec torchrun \
    --nnodes "${NODES:-1}" \
    --nproc-per-node "${GPUS:-gpu}" \
    --rdzv-backend c10d \
    --rdzv-endpoint "${HOST:-localhost:0}" \
    --rdzv-id "${RUN_ID:-rlhf}" \
    --max-restarts "${RESTARTS:-0}" \
    --shutdown-timeout "${GRACE:-30}" \
    "${where[@]}" \
    -m rlhf "$@"

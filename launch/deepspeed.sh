#!/usr/bin/env bash
# One process a slot of a DeepSpeed hostfile, reached by pdsh: HOSTFILE=hosts launch/deepspeed.sh stage=ppo zero=3
# The file has a line a machine, such as `worker-1 slots=8`. Without one: every GPU of this machine.
set -euo pipefail
exec deepspeed --hostfile "${HOSTFILE:-/job/hostfile}" --no_local_rank --module rlhf "$@"

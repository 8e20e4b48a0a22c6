"""Kill stages with SIGKILL at random moments, resume them, and compare with runs that were never stopped.

    python tests/support/kills.py                   # 24 kills over sft, reward and PPO; some minutes
    python tests/support/kills.py --kills 300       # an hour
    python tests/support/kills.py --stages ppo --ranks 2 --zero 2

A third of the kills wait for a checkpoint that is being written. At the end of each stage its weights must be the same
bytes, and metrics.jsonl the same lines but for what a clock measured: no step twice, none missing.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SETTINGS = {
    "sft": ["data.sandbox.demonstrations=300", "sft.epochs=3", "sft.select_by=last"],
    "reward": ["data.sandbox.ranking_prompts=120", "reward.epochs=2", "reward.batch_size=8"],
    "ppo": [
        *("ppo.episodes=240", "ppo.batch_size=16", "ppo.num_minibatches=2", "ppo.save_every=1", "ppo.ema_decay=0.9"),
        *("ppo.evaluate_every=4", "ppo.evaluation_prompts=8", "ppo.ptx.coef=1.0", "ppo.kl.target=3.0", "ppo.keep=best"),
    ],
}
COMMON = [
    *("model=sandbox-s", "launch.device=cpu", "launch.threads=1", "tracker.progress=false", "run.save_minutes=0.01"),
    *("rollout.max_new_tokens=16", "data.sandbox.pretraining_documents=2000"),
]
BY_CLOCK = ("time/", "train/tokens_per_second")


def command(stage: str, run: str, root: Path, extra: list[str]) -> list[str]:
    words = [f"stage={stage}", f"run.name={run}", f"run.root={root}", *COMMON, *SETTINGS[stage], *extra]
    if run != "whole":
        words.append(f"run.parents={root / 'whole'}")
    return [sys.executable, "-m", "rlhf", *words]


def start(words: list[str], log: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    with log.open("ab") as out:
        return subprocess.Popen(words, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)


def finish(words: list[str], log: Path) -> float:
    """Run to the end; the seconds it took."""
    began = time.monotonic()
    status = start(words, log).wait()
    if status != 0:
        sys.exit(f"exit status {status}; the log is {log}")
    return time.monotonic() - began


def is_saving(folder: Path) -> bool:
    """Whether a checkpoint is being written: one that is not sealed yet."""
    found = [*folder.glob(".step-*.new-*"), *folder.glob("checkpoint-*")]
    return any(not (path / "SHA256SUMS").exists() for path in found)


def kill_once(words: list[str], log: Path, checkpoints: Path, moment: float | None, patience: float) -> bool:
    """Start, then kill after `moment` seconds, or None: in the next save. False when it finished before."""
    process = start(words, log)
    until = time.monotonic() + (moment if moment is not None else patience)
    while time.monotonic() < until and process.poll() is None:
        if moment is None and is_saving(checkpoints):
            break
        time.sleep(0.001 if moment is None else 0.02)
    if process.poll() is not None:
        if process.returncode != 0:
            sys.exit(f"exit status {process.returncode}; the log is {log}")
        return False
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return True


def rows(folder: Path) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in row.items() if not k.startswith(BY_CLOCK)} for row in lines]


def differences(one: Path, other: Path) -> list[str]:
    found = []
    for model in ("model", "value_model"):
        for file in sorted((one / model).glob("*.safetensors")) if (one / model).exists() else []:
            twin = other / model / file.name
            if not twin.exists() or file.read_bytes() != twin.read_bytes():
                found.append(f"{model}/{file.name}")
    mine, theirs = rows(one), rows(other)
    if mine != theirs:
        same = [a == b for a, b in zip(mine, theirs, strict=False)]
        at = same.index(False) if False in same else len(same)
        found.append(f"metrics.jsonl, line {at + 1} ({len(mine)} and {len(theirs)} lines)")
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=24, help="over all stages")
    parser.add_argument("--stages", default="sft,reward,ppo")
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--ranks", type=int, default=1)
    parser.add_argument("--zero", default="none")
    parser.add_argument("--work", type=Path, help="where to run; a temporary folder")
    arguments = parser.parse_args()
    work = arguments.work or Path(tempfile.mkdtemp(prefix="rlhf-kills-"))
    work.mkdir(parents=True, exist_ok=True)
    extra = [f"launch.gpus_per_node={arguments.ranks}", f"zero={arguments.zero}"]
    rng = random.Random(arguments.seed)
    stages = arguments.stages.split(",")
    log = work / "log.txt"
    failed = False
    print(f"working in {work}", flush=True)
    for place, stage in enumerate(("sft", "reward", "ppo")):
        if place > max(("sft", "reward", "ppo").index(name) for name in stages):
            break
        took = finish(command(stage, "whole", work, extra), log)
        print(f"{stage}: {took:.0f} s without a stop", flush=True)
        if stage not in stages:
            continue
        words, folder = command(stage, "killed", work, extra), work / "killed" / stage
        wanted = arguments.kills // len(stages) + (stages.index(stage) < arguments.kills % len(stages))
        kills = during_saves = finished = 0
        while kills < wanted:
            moment = None if rng.random() < 1 / 3 else rng.uniform(0.3 * took, 0.9 * took)
            if kill_once(words, log, folder / "checkpoints", moment, patience=2 * took):
                kills += 1
                during_saves += is_saving(folder / "checkpoints")
                continue
            finished += 1  # before it was to be killed: compare, and begin anew
            failed |= report(stage, work, f"after {kills} kills")
            shutil.rmtree(work / "killed")
        finish(words, log)
        failed |= report(stage, work, f"after {kills} kills, {during_saves} of them in a save")
    if failed:
        sys.exit(1)
    if arguments.work is None:
        shutil.rmtree(work)


def report(stage: str, work: Path, when: str) -> bool:
    found = differences(work / "whole" / stage, work / "killed" / stage)
    lines = len(rows(work / "killed" / stage))
    verdict = "DIFFERS in " + ", ".join(found) if found else f"the same bits, {lines} lines of metrics"
    print(f"{stage}: {when}: {verdict}", flush=True)
    return bool(found)


if __name__ == "__main__":
    main()

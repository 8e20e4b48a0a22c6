"""PPO, rollout, reward and SFT of ours beside TRL 1.12's and the floor, iteration by iteration in turn.

    make bench                                       # the whole of it, an hour on two cores that do nothing else
    python -m tests.benchmarks.versus_trl --quick    # every path in small; the numbers mean nothing

Each side is a process of its own, and only one of them works at any time. What is compared is in `workload.py`. The
last line is one JSON object of ratios, above 1 where ours is better: TRL's seconds over ours for `ppo_*`, our rate over
TRL's for `rollout` (tokens a second), `reward_*` (prompts a second) and `sft_*` (non-padding tokens a second), and
TRL's peak resident memory over ours, the least of the three trainings in float32, for `memory`. All are for responses
of mixed length. `*_float32` is float32 as torch computes it by default, on both sides. `*_default` and `rollout` are
our default precision on a CPU against TRL in float32; `*_default_over_default` is against what TRL does when not told
(bfloat16 autocast, activation checkpointing), `*_default_over_settings` against TRL with the two settings that speed
up any trainer on a CPU: oneDNN's matrix products and attention as plain products.
"""

from __future__ import annotations

import argparse
import json
import math
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

from tests.benchmarks.versus_trl import environment, scaling, workload
from tests.benchmarks.versus_trl.gate import Worker
from tests.benchmarks.versus_trl.workload import Job

RESULTS = Path(__file__).resolve().parents[1] / "results"
SIDES = [
    ("ours", "float32"),
    ("ours", "default"),
    ("peer", "float32"),
    ("peer", "default"),
    ("peer", "settings"),
    ("floor", "float32"),
    ("floor", "default"),
]
UNITS = {"ppo": "iterations", "rollout": "tokens", "reward": "prompts", "sft": "tokens"}
TRAININGS = ("ppo", "reward", "sft")
MORE_ROLLOUTS = 3  # times the iterations of the others: they are short, and what they draw varies
Row = dict[str, Any]


def measure(jobs: Sequence[Job], pythons: Mapping[str, Path], root: Path, threads: int, iterations: int) -> list[Row]:
    """Median seconds and rate of each job over `iterations`, taken in turn after one that is thrown away."""
    for job in jobs:
        workload.save_models(workload.folder_of(root, job), job.hidden, job.lengths)
    workers = [Worker(pythons[job.side], job, root, threads) for job in jobs]
    reports: list[list[Mapping[str, Any]]] = [[] for _ in workers]
    for _ in range(1 + iterations):
        for worker, kept in zip(workers, reports, strict=True):
            kept.append(worker.iterate())
    for worker in workers:
        worker.stop()
    drawn = statistics.fmean(report["units"] for kept in reports for report in kept[1:])
    return [
        summary_of(job, kept[1:], units=drawn if job.task == "rollout" else None)
        for job, kept in zip(jobs, reports, strict=True)
    ]


def summary_of(job: Job, reports: Sequence[Mapping[str, Any]], units: float | None = None) -> Row:
    """The job with medians over its iterations.

    units: of an iteration, where its own are luck: all sides sample from one distribution, and a side that happens to
    draw shorter responses is not slower.
    """
    own = statistics.fmean(report["units"] for report in reports)

    def median(name: str) -> float:
        return statistics.median(report[name] for report in reports)

    others = [name for name in reports[0] if name not in ("seconds", "units", "peak_mb")]
    return {
        **asdict(job),
        "seconds": median("seconds"),
        "all_seconds": [round(report["seconds"], 4) for report in reports],
        "units": own,
        "rate": (own if units is None else units) / median("seconds"),
        "rate_of": UNITS[job.task],
        "peak_mb": reports[-1]["peak_mb"],
        **{name: median(name) for name in others},
    }


def ratios(rows: Sequence[Row]) -> dict[str, float]:
    """The numbers of the last line, of the tasks that were run; see this module's docstring."""
    tasks = {row["task"] for row in rows}

    def find(side: str, task: str, precision: str) -> Row:
        wanted = {"side": side, "task": task, "precision": precision, "lengths": "mixed"}
        return next(row for row in rows if wanted.items() <= row.items())

    def over(task: str, ours: str, peer: str) -> float:
        return float(find("ours", task, ours)["rate"] / find("peer", task, peer)["rate"])

    def memory(task: str, precision: str) -> float:
        return float(find("peer", task, precision)["peak_mb"] / find("ours", task, precision)["peak_mb"])

    found = {}
    for task in ("ppo", "rollout", "reward", "sft"):
        if task in tasks:
            exact, usual = over(task, "float32", "float32"), over(task, "default", "float32")
            # What is asked of a rollout is one number, that of the default precision.
            named = {"rollout": usual} if task == "rollout" else {f"{task}_float32": exact, f"{task}_default": usual}
            found |= named
    if tasks.issuperset(TRAININGS):
        found["memory"] = min(memory(task, "float32") for task in TRAININGS)
    if "rollout" in tasks:
        found["rollout_float32"] = over("rollout", "float32", "float32")
    for task in tasks.intersection(TRAININGS):
        found[f"memory_{task}_float32"] = memory(task, "float32")
        found[f"memory_{task}_default_over_default"] = memory(task, "default")
    for task in tasks:
        found[f"{task}_default_over_default"] = over(task, "default", "default")
        found[f"{task}_default_over_settings"] = over(task, "default", "settings")
    return {name: round(value, 3) for name, value in found.items()}


def overhead(rows: Sequence[Row]) -> list[str]:
    """How much longer than the floor ours takes for the same work, in percent."""
    floors = {_key(row): row["rate"] for row in rows if row["side"] == "floor"}
    lines = []
    for row in rows:
        if row["side"] == "ours" and _key(row) in floors:
            percent = 100 * (floors[_key(row)] / row["rate"] - 1)
            lines.append(f"{row['task']:8s} {row['precision']:8s} {row['lengths']:6s} {percent:6.1f} %")
    return lines


def _key(row: Row) -> tuple[Any, ...]:
    return tuple(row[name] for name in ("task", "precision", "lengths", "batch", "new_tokens", "hidden"))


def table(rows: Sequence[Row]) -> list[str]:
    lines = ["task     lengths side   precision  seconds       rate               peak MB"]
    for row in rows:
        lines.append(
            f"{row['task']:8s} {row['lengths']:7s} {row['side']:6s} {row['precision']:9s} {row['seconds']:8.3f} "
            f"{row['rate']:10.2f} {row['rate_of'] + '/s':13s} {row['peak_mb']:7.0f}"
        )
    return lines


def growth(run: Callable[[Sequence[Job]], list[Row]], quick: bool) -> tuple[list[Row], dict[str, float], list[str]]:
    """Seconds an iteration of PPO along each axis, ours and TRL's and the floor's, in float32; fitted exponents."""
    rows: list[Row] = []
    exponents: dict[str, float] = {}
    lines = []
    base = Job("ours", "ppo", "float32", lengths="long")
    if quick:
        base = replace(base, batch=16, new_tokens=8, hidden=64)
    for axis, jobs in scaling.jobs(base, scaling.QUICK_AXES if quick else scaling.AXES).items():
        seconds: dict[str, list[float]] = {"ours": [], "peer": [], "floor": []}
        for job in jobs:
            measured = run([replace(job, side=side) for side in seconds])
            rows += measured
            for row in measured:
                seconds[row["side"]].append(row["seconds"])
        sizes = [getattr(job, axis) for job in jobs]
        for side, taken in seconds.items():
            exponents[f"{side}_{axis}"] = round(scaling.exponent(sizes, taken), 3)
            points = ", ".join(f"{size}: {second:.2f} s" for size, second in zip(sizes, taken, strict=True))
            lines.append(f"{axis:10s} {side:6s} {points}; exponent {exponents[f'{side}_{axis}']:.2f}")
    return rows, exponents, lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="small models and batches, two iterations")
    parser.add_argument("--work", type=Path, default=Path(".versus_trl"), help="models, logs and TRL's environment")
    parser.add_argument("--peer-python", type=Path, help="one that has TRL 1.12; none: it is made")
    parser.add_argument("--iterations", type=int, default=7)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--tasks", default=",".join(UNITS), help="of ppo, rollout, reward, sft")
    parser.add_argument("--no-growth", action="store_true", help="leave out the part about how cost grows")
    args = parser.parse_args()
    root = args.work.resolve()
    root.mkdir(parents=True, exist_ok=True)
    peer = args.peer_python or environment.peer_python(root / "trl")
    pythons = {"ours": Path(sys.executable), "floor": Path(sys.executable), "peer": peer}
    iterations = 2 if args.quick else args.iterations
    small: dict[str, int] = {"batch": 16, "new_tokens": 16, "hidden": 64} if args.quick else {}
    surroundings = environment.machine()

    def run(jobs: Sequence[Job], iterations: int = iterations) -> list[Row]:
        return measure(jobs, pythons, root, args.threads, iterations)

    rows: list[Row] = []
    for lengths in ("mixed", "long", "short"):
        for task in args.tasks.split(","):
            if lengths == "mixed" or task in ("ppo", "rollout"):
                sides = [s for s in SIDES if lengths == "mixed" or s[1] != "settings"]
                measured = run(
                    [Job(side, task, precision, lengths, **small) for side, precision in sides],
                    iterations * (MORE_ROLLOUTS if task == "rollout" else 1),
                )
                rows += measured
                print("\n".join(table(measured)), flush=True)
    print("\nours above the floor")
    print("\n".join(overhead(rows)), flush=True)
    exponents: dict[str, float] = {}
    if not args.no_growth:
        grown, exponents, lines = growth(lambda jobs: run(jobs, min(iterations, 3)), args.quick)
        rows += grown
        print("\nseconds an iteration of PPO, float32, all-long responses\n" + "\n".join(lines))
    summary = ratios(rows)
    if not args.quick:
        RESULTS.mkdir(exist_ok=True)
        record = {
            "when": time.strftime("%Y-%m-%dT%H:%M:%S"),
            "machine": surroundings,
            "threads": args.threads,
            "versions": {side: environment.versions(pythons[side]) for side in ("ours", "peer")},
            "ratios": summary,
            "exponents": exponents,
            "rows": rows,
        }
        assert all(math.isfinite(value) for value in summary.values())
        target = RESULTS / f"versus_trl-{time.strftime('%Y%m%d-%H%M%S')}.json"
        target.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        print(f"written to {target}", file=sys.stderr)
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

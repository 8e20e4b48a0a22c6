"""Whether what makes PPO fast on a CPU changes what it learns: the same seeds with and without it.

    python tests/benchmarks/same_curve.py runs/demo            # a run whose sft and reward stages are finished

Fast is the default; plain is Transformers' fused attention on padded batches with torch's own float32 products. Both
start from the run's SFT and reward model. Two runs of one seed and path are equal to the bit, so all that differs
within a seed is rounding, which a few hundred sampled tokens later is another sample: the question is whether the two
paths are further apart than two seeds are. Ends with one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATHS = {"fast": [], "plain": ["model.attn_implementation=sdpa", "launch.float32_matmul=highest"]}
SHOWN = ("objective/score", "objective/kl", "objective/gold")
Curves = dict[str, list[float]]


def train(parents: Path, path: str, seed: int) -> Curves:
    """Each shown metric, iteration by iteration."""
    name = f"same-curve-{path}-{seed}"
    words = ["stage=ppo", f"run.name={name}", f"run.parents={parents}", f"seed={seed}", *PATHS[path]]
    words += ["launch.threads=1", "tracker.progress=false"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-m", "rlhf", *words], env=environment, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(done.stdout + done.stderr)
    lines = Path("runs", name, "ppo", "metrics.jsonl").read_text().splitlines()
    rows = [row for row in map(json.loads, lines) if "objective/score" in row]
    return {metric: [row[metric] for row in rows] for metric in SHOWN}


def distance(one: Sequence[float], other: Sequence[float]) -> float:
    """Mean absolute difference over the second half of training, where paths that learn differently have parted."""
    half = len(one) // 2
    return statistics.fmean(abs(a - b) for a, b in zip(one[half:], other[half:], strict=True))


def draw(curves: dict[tuple[str, int], Curves], target: Path) -> None:
    import matplotlib

    matplotlib.use("agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, len(SHOWN), figsize=(11, 3.2), layout="constrained")
    colours = {"fast": "#0072B2", "plain": "#D55E00"}
    for axes, metric in zip(panels, SHOWN, strict=True):
        for (path, seed), curve in curves.items():
            label = path if seed == 0 else None
            axes.plot(curve[metric], color=colours[path], linewidth=1, alpha=0.8, label=label)
        axes.set_title(metric, fontsize=10)
        axes.set_xlabel("iteration")
        axes.grid(color="#dddddd", linewidth=0.6)
    panels[0].legend(frameon=False)
    figure.savefig(target, dpi=130)
    pyplot.close(figure)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parents", type=Path, help="a run with finished sft and reward stages")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--jobs", type=int, default=2, help="runs at a time, each on one thread")
    parser.add_argument("--plot", type=Path, default=Path("runs/same_curve.png"))
    args = parser.parse_args()
    asked = [(path, seed) for seed in range(args.seeds) for path in PATHS]
    with ThreadPoolExecutor(args.jobs) as pool:
        curves = dict(zip(asked, pool.map(lambda job: train(args.parents, *job), asked), strict=True))
    draw(curves, args.plot)
    summary: dict[str, dict[str, float]] = {}
    for metric in SHOWN:
        between_paths = [
            distance(curves["fast", seed][metric], curves["plain", seed][metric]) for seed in range(args.seeds)
        ]
        between_seeds = [
            distance(curves[path, a][metric], curves[path, b][metric])
            for path in PATHS
            for a, b in combinations(range(args.seeds), 2)
        ]
        last = {
            path: [statistics.fmean(curves[path, seed][metric][-5:]) for seed in range(args.seeds)] for path in PATHS
        }
        summary[metric] = {
            "between_paths": statistics.fmean(between_paths),
            "between_seeds": statistics.fmean(between_seeds),
            **{f"last_{path}": statistics.fmean(values) for path, values in last.items()},
            **{f"last_{path}_spread": statistics.stdev(values) for path, values in last.items()},
        }
        print(metric, {name: round(value, 4) for name, value in summary[metric].items()})
    print(f"\n{args.plot}")
    print(json.dumps(summary))


if __name__ == "__main__":
    main()

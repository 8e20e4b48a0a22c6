"""The numbers of "The sandbox" in docs/evidence.md: three seeds, three sizes, one KL sweep.

    python tests/benchmarks/sandbox_numbers.py          # finished runs are skipped, so it can be stopped and started

Runs the same commands a person would type, in runs/numbers-*, and reads their report.json and manifest.json. Writes
tests/benchmarks/sandbox_numbers.json and prints a table; nothing here decides what the numbers are.
"""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
RUNS = ROOT / "runs"
SEEDS = (0, 1, 2)
KL_COEFS = (0, 0.05, 0.2, 0.8)
MAIN = "numbers-seed0"


def rlhf(*words: str) -> None:
    """Run one command of that page."""
    print("$ python -m rlhf", *words, flush=True)
    subprocess.run([sys.executable, "-m", "rlhf", *words], cwd=ROOT, check=True)


def report(run: str, stage: str = "compare") -> dict[str, Any]:
    return json.loads((RUNS / run / stage / "report.json").read_text(encoding="utf-8"))


def metrics(run: str, stage: str) -> dict[str, float]:
    return json.loads((RUNS / run / stage / "manifest.json").read_text(encoding="utf-8"))["metrics"]


def cross(smaller: str, larger: str) -> dict[str, Any]:
    """The smaller model's PPO policy, judged against the larger one's SFT model."""
    name = f"{smaller}-against-{larger}"
    rlhf(
        "stage=compare",
        f"run.name={name}",
        f"run.parents=runs/{larger}",
        f"compare.candidates.smaller_ppo=runs/{smaller}/ppo/model",
    )
    candidate = report(name)["candidates"]["smaller_ppo"]
    return {"win_rate": candidate["win_rate"], "win_rate_ci": candidate["win_rate_ci"]}


def summary(run: str) -> dict[str, Any]:
    candidates = report(run)["candidates"]
    reward = metrics(run, "reward")
    return {
        "sft_against_base": 1 - candidates["base"]["win_rate"],
        "ppo_against_sft": candidates["ppo"]["win_rate"],
        "ppo_against_sft_ci": candidates["ppo"]["win_rate_ci"],
        "gold": {name: candidates[name]["gold_score"] for name in ("base", "sft", "ppo")},
        "kl": candidates["ppo"]["kl"],
        "reward_accuracy_gold": reward["eval/accuracy_gold"],
        "reward_accuracy_labels": reward["eval/accuracy"],
    }


def main() -> None:
    for seed in SEEDS:
        rlhf(f"run.name=numbers-seed{seed}", f"seed={seed}")
    for size in "sl":
        rlhf(f"run.name=numbers-{size}", f"model=sandbox-{size}")
    rlhf("-m", "stage=ppo", f"ppo.kl.coef={','.join(map(str, KL_COEFS))}", f"run.name={MAIN}")
    report_of_sweep = json.loads((ROOT / "runs" / MAIN / "report" / "report.json").read_text(encoding="utf-8"))
    swept = {point["kl_coef"]: point for point in report_of_sweep["points"] if point["method"] == "ppo"}
    numbers = {
        "machine": {"processor": platform.processor() or platform.machine(), "cores": os.cpu_count()},
        "seeds": {seed: summary(f"numbers-seed{seed}") for seed in SEEDS},
        "sizes": {"s": summary("numbers-s"), "m": summary(MAIN), "l": summary("numbers-l")},
        "smaller_ppo_against_larger_sft": {
            "s against m": cross("numbers-s", MAIN),
            "m against l": cross(MAIN, "numbers-l"),
        },
        "kl_sweep": {
            coef: {
                "kl": swept[coef]["kl"]["mean"],
                "gold": swept[coef]["judge"]["mean"],
                "reward_model": swept[coef]["proxy"]["mean"],
                "win_rate": swept[coef]["wins_sft"]["mean"],
            }
            for coef in KL_COEFS
        },
    }
    path = Path(__file__).with_suffix(".json")
    path.write_text(json.dumps(numbers, indent=1) + "\n", encoding="utf-8")
    print_tables(numbers)
    print(f"\nwritten to {path.relative_to(ROOT)}")


def print_tables(numbers: dict[str, Any]) -> None:
    print("\nrun     SFT v base  PPO v SFT [95 %]        gold base/sft/ppo     KL     RM gold  RM labels")
    rows = {f"seed {s}": row for s, row in numbers["seeds"].items()}
    rows |= {f"size {s}": numbers["sizes"][s] for s in "sl"}
    for name, row in rows.items():
        low, high = row["ppo_against_sft_ci"]
        gold = " / ".join(f"{row['gold'][c]:.3f}" for c in ("base", "sft", "ppo"))
        print(
            f"{name:<7} {row['sft_against_base']:>9.1%}  {row['ppo_against_sft']:>7.1%} [{low:.1%}, {high:.1%}]"
            f"  {gold}  {row['kl']:>5.1f}  {row['reward_accuracy_gold']:>7.1%}  {row['reward_accuracy_labels']:>8.1%}"
        )
    print("\nsmaller PPO against the next larger SFT")
    for name, row in numbers["smaller_ppo_against_larger_sft"].items():
        low, high = row["win_rate_ci"]
        print(f"  {name}: {row['win_rate']:.1%} [{low:.1%}, {high:.1%}]")
    print("\nKL coefficient  KL (nats)  reward model  gold   win rate against SFT")
    for coef, row in numbers["kl_sweep"].items():
        print(f"{coef:>14}  {row['kl']:>9.2f}  {row['reward_model']:>12.2f}  {row['gold']:.3f}  {row['win_rate']:.1%}")


if __name__ == "__main__":
    main()

"""Made-up published verdicts: rows as files have them, and verdicts as they are read."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import expit

from rlhf.evaluation.published.verdicts import Verdict
from rlhf.evaluation.published.verdicts_summary import summarise


def row(preference: Any, **values: Any) -> dict[str, Any]:
    """One of AlpacaEval's annotations, `values` in place of what they usually say."""
    return {
        "instruction": "Name a bird.",
        "output_1": "A robin.",
        "output_2": "A wren.",
        "generator_1": "davinci",
        "generator_2": "alpaca",
        "annotator": "gpt4",
        "dataset": "koala",
        "preference": preference,
    } | values


def written(path: Path, rows: list[dict[str, Any]]) -> str:
    path.write_text(json.dumps(rows))
    return str(path)


def verdict(won: float | None, prompt: int | str = 0, **values: Any) -> Verdict:
    usual = {"generators": ("base", "ours"), "outputs": ("one", "other one"), "judge": "gpt4", "dataset": ""}
    return Verdict(prompt=str(prompt), won=won, **(usual | values))


def report(verdicts: list[Verdict], samples: int = 200) -> dict[str, Any]:
    return summarise(verdicts, bootstrap_samples=samples, seed=0)


def liking_length(n: int = 200) -> list[Verdict]:
    """A judge who likes long outputs, on outputs of unlike lengths."""
    generator = np.random.default_rng(1)
    ours, theirs = generator.integers(1, 400, size=n), generator.integers(1, 300, size=n)
    chance = expit(-0.5 + 1.5 * np.tanh((ours - theirs) / np.std(ours - theirs)))
    return [
        verdict(float(generator.random() < chance[i]), i, outputs=("é" * theirs[i], "x" * ours[i])) for i in range(n)
    ]


def both_orders(prompt: int, first_won: float, turned_first_won: float) -> list[Verdict]:
    """One comparison seen in both orders: 1 where the output shown first won."""
    return [
        verdict(1 - first_won, prompt, outputs=("a", "b")),
        verdict(1 - turned_first_won, prompt, generators=("ours", "base"), outputs=("b", "a")),
    ]


def league() -> list[Verdict]:
    """Three models, each pair on the same 40 prompts."""
    rows = [("base", "sft", 0.7), ("base", "ppo", 0.85), ("sft", "ppo", 0.7)]
    return [
        verdict(float(i < rate * 40), i, generators=(one, other), outputs=(one, other))
        for one, other, rate in rows
        for i in range(40)
    ]

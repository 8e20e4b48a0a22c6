"""Made-up comparisons, large enough to look at: a chain, a sweep and their curves."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from rlhf.evaluation.comparison.answers import Answers
from rlhf.evaluation.comparison.curves import Curves
from rlhf.evaluation.comparison.summary import summarise
from rlhf.evaluation.judges.judge import Verdicts
from rlhf.evaluation.pages.html import Made
from rlhf.runtime.jsonl import json_value

TASKS = ("arithmetic", "classification", "sorting", "summarising", "refusal", "format_constraints", "multi_turn")
WORDS = ("the", "cat", "counts", "seven", "red", "boats", "near", "a", "quiet", "harbour", "and", "then", "rests")


def made_up_verdicts(strength: float, prompts: int, baseline: bool) -> Verdicts:
    """Of a judge that likes the place it sees first, gives no verdict on sorting, and cannot be read now and then."""
    if baseline:
        none = [0] * prompts
        return Verdicts([0.5] * prompts, [False] * prompts, none, none, none, [True] * prompts)
    generator = np.random.default_rng(1)
    shown_first, shown_second = generator.random(prompts) < strength + 0.15, generator.random(prompts) < strength - 0.15
    failed = (generator.random(prompts) < 0.03) | (np.arange(prompts) % len(TASKS) == TASKS.index("sorting"))
    wins = np.where(shown_first == shown_second, shown_first, 0.5)
    return Verdicts(
        wins=np.where(failed, np.nan, wins).tolist(),
        inconsistent=((shown_first != shown_second) & ~failed).tolist(),
        failures=failed.astype(int).tolist(),
        first=np.where(failed, 0, shown_first.astype(int) + ~shown_second).tolist(),
        decided=np.where(failed, 0, 2).tolist(),
        identical=[False] * prompts,
    )


class Comparison:
    """Report, response rows and curves that fit together."""

    def __init__(
        self, quality: dict[str, tuple[float, float, float]], prompts: int = 140, *, llm_first: bool | None = None
    ) -> None:
        """llm_first: whether an LLM judge comes before the others; None: there is none."""
        generator = np.random.default_rng(0)
        tasks = [TASKS[i % len(TASKS)] for i in range(prompts)]
        answers = {}
        for name, (gold, proxy, kl) in quality.items():
            hardness = np.linspace(-0.2, 0.2, len(TASKS))[[TASKS.index(task) for task in tasks]]
            answers[name] = Answers(
                path=f"runs/demo/{name}/model",
                texts=[" ".join(generator.choice(WORDS, size=int(generator.integers(3, 14)))) for _ in tasks],
                tokens=[int(n) for n in generator.integers(5, 40, size=prompts)],
                ended=[bool(b) for b in generator.random(prompts) < 0.95],
                scores={
                    "gold": np.clip(gold + hardness + generator.normal(0, 0.2, prompts), 0, 1).tolist(),
                    "reward_model": (proxy + generator.normal(0, 1.2, prompts)).tolist(),
                },
                text_loss=1.0 + 0.1 * kl,
                kl=(kl + generator.normal(0, 0.2 + kl / 4, prompts)).tolist() if name != "sft" else [0.0] * prompts,
                verdicts={} if llm_first is None else {"llm": made_up_verdicts(gold - 0.05, prompts, name == "sft")},
            )
        self.answers = answers
        judges = {"gold": "gold score (0 to 1)", "reward_model": "reward-model score"}
        llm = {} if llm_first is None else {"llm": None}
        self.report: dict[str, Any] = summarise(
            answers,
            tasks,
            baseline="sft",
            judges=llm | judges if llm_first else judges | llm,
            tie_margin=0.0,
            bootstrap_samples=500,
            seed=0,
        )
        if llm_first is not None:
            self.report["llm_judge"] = {
                "model": "judge-8b",
                "url": "http://localhost:8000/v1",
                "requests": 500,
                "cached": 24,
                "prompt_tokens": 210000,
                "completion_tokens": 31000,
                "requests_without_usage": 0,
                "cost": 0.0512,
                "parse_failures": 9,
            }
        self.responses: list[dict[str, Any]] = [
            {
                "id": f"sandbox:{i}",
                "task": task,
                "messages": [{"role": "user", "content": f"Question {i} about {task}: what does <b>the cat</b> do?"}],
                "candidates": {
                    name: {
                        "response": given.texts[i],
                        "tokens": given.tokens[i],
                        "ended": given.ended[i],
                        "kl": given.kl[i] if given.kl else None,
                        "scores": {judge: scores[i] for judge, scores in given.scores.items()},
                        "verdicts": {judge: json_value(said.wins[i]) for judge, said in given.verdicts.items()},
                    }
                    for name, given in answers.items()
                },
            }
            for i, task in enumerate(tasks)
        ]
        steps = np.arange(1, 51)
        self.curves = Curves(
            sft=[{"step": int(s), "train/loss": 2 * np.exp(-s / 30) + 1} for s in range(1, 120, 3)]
            + [{"step": 60, "eval/loss": 1.4}, {"step": 119, "eval/loss": 1.2}],
            reward=[{"step": int(s), "train/loss": 0.69 - 0.004 * s} for s in steps]
            + [{"step": 50, "eval/loss": 0.52, "eval/accuracy": 0.72}],
            ppo={
                name: [
                    {
                        "step": int(s),
                        "objective/score": proxy * (1 - np.exp(-s / 15)) + generator.normal(0, 0.1),
                        "objective/gold": 0.55 + (gold - 0.55) * (1 - np.exp(-s / 15)),
                        "objective/kl": kl * (1 - np.exp(-s / 15)),
                        "rollout/response_tokens": 20 + 0.1 * s,
                        **({"eval/score": proxy * (1 - np.exp(-s / 15)), "eval/kl": kl} if s % 10 == 0 else {}),
                    }
                    for s in steps
                ]
                for name, (gold, proxy, kl) in quality.items()
                if name.startswith("ppo")
            },
            kl_coef={name: 0.1 / (i + 1) for i, name in enumerate(n for n in quality if n.startswith("ppo"))},
        )
        self.made = Made(
            command="python -m rlhf stage=compare run.name=demo",
            config="seed: 0\ncompare:\n  prompts: 140\n",
            versions={"python": "3.11", "torch": "2.13"},
            data={"sha256": "ab" * 32, "prompts": 140},
            folders={"report": "runs/demo/compare"},
        )


@pytest.fixture(scope="session")
def chain() -> Comparison:
    return Comparison({"base": (0.2, -2.0, 25.0), "sft": (0.55, 0.0, 0.0), "ppo": (0.75, 2.0, 6.0)})


@pytest.fixture(scope="session")
def sweep() -> Comparison:
    return Comparison(
        {
            "base": (0.2, -2.0, 25.0),
            "sft": (0.55, 0.0, 0.0),
            "ppo": (0.72, 1.4, 4.0),
            "ppo_kl0.05": (0.78, 2.0, 9.0),
            "ppo_kl0.02": (0.66, 2.6, 18.0),
            "ppo_kl0": (0.35, 3.5, 60.0),
        }
    )


@pytest.fixture(scope="session")
def judged() -> Comparison:
    """A chain that an LLM judge decides."""
    return Comparison({"base": (0.2, -2.0, 25.0), "sft": (0.55, 0.0, 0.0), "ppo": (0.75, 2.0, 6.0)}, llm_first=True)


@pytest.fixture(scope="session")
def judged_sweep() -> Comparison:
    """A sweep that an LLM judge sees beside the others."""
    quality = {"sft": (0.55, 0.0, 0.0), "ppo": (0.72, 1.4, 4.0), "ppo_kl0": (0.35, 3.5, 60.0)}
    return Comparison(quality, llm_first=False)

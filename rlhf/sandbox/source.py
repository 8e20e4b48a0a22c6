"""The sandbox as a data source: demonstrations, rankings, prompts and text, all from a seed."""

from __future__ import annotations

import hashlib
import json
import random
from collections.abc import Callable, Iterator
from dataclasses import asdict
from typing import Any

from rlhf.config import SandboxConfig
from rlhf.data.records import Demonstration, MultipleChoice, Prompt, Ranking, Sampler, Split
from rlhf.sandbox import corpus
from rlhf.sandbox.benchmark import benchmark
from rlhf.sandbox.families import FAMILIES, TRAINING_FAMILIES, make_prompt
from rlhf.sandbox.gold import gold_score
from rlhf.sandbox.labeler import label
from rlhf.sandbox.world import World
from rlhf.sandbox.writers import write_demonstration

EVALUATION_RANKINGS = 300  # prompts of the held-out rankings
EVALUATION_DEMONSTRATIONS = 300
EVALUATION_DOCUMENTS = 500
FORMAT = 1  # counts up when the same config would make other bytes


class SandboxSource:
    """Training prompts use training families and phrasings; evaluation prompts use held-out phrasings of every family.

    One prompt in six of the evaluation set is of a family that training never sees.
    """

    def __init__(self, config: SandboxConfig, seed: int) -> None:
        self.config = config
        self.seed = seed
        self.world = World.from_seed(config.world_seed)

    @property
    def gold(self) -> Callable[[Prompt, str], float]:
        return gold_score

    def prompts(self, split: Split) -> list[Prompt]:
        if split == Split.train:
            return list(self._prompts("ppo", self.config.prompts, held_out=False))
        return list(self._prompts("evaluation", self.config.evaluation_prompts, held_out=True))

    def demonstrations(self, split: Split) -> list[Demonstration]:
        train = split == Split.train
        key = "sft" if train else "sft-evaluation"
        count = self.config.demonstrations if train else min(EVALUATION_DEMONSTRATIONS, self.config.demonstrations)
        rng = random.Random(self._key("writers", key))
        return [
            Demonstration(prompt, write_demonstration(prompt, rng))
            for prompt in self._prompts(key, count, held_out=False)
        ]

    def rankings(self, split: Split, sample: Sampler) -> list[Ranking]:
        """Completions that `sample` writes, ranked by a labeler; held-out rankings are of other prompts."""
        train = split == Split.train
        key = "reward" if train else "reward-evaluation"
        count = self.config.ranking_prompts if train else min(EVALUATION_RANKINGS, self.config.ranking_prompts)
        prompts = list(self._prompts(key, count, held_out=False))
        rng = random.Random(self._key("completions", key))
        counts = [rng.randint(self.config.min_completions, self.config.max_completions) for _ in prompts]
        completions = sample(prompts, counts)
        return label(prompts, completions, wanted=self.config.labeler_agreement, seed=self.seed)

    def texts(self, split: Split) -> list[str]:
        if split == Split.train:
            return list(corpus.documents(self.world, self.config.pretraining_documents, "train"))
        return list(corpus.documents(self.world, EVALUATION_DOCUMENTS, "evaluation"))

    @property
    def has_texts(self) -> bool:
        return True

    def benchmark(self) -> list[MultipleChoice]:
        return benchmark(self.world)

    def fingerprint(self) -> dict[str, Any]:
        described = json.dumps({"format": FORMAT, "seed": self.seed, **asdict(self.config)}, sort_keys=True)
        rows = {
            "demonstrations": self.config.demonstrations,
            "ranking_prompts": self.config.ranking_prompts,
            "prompts": self.config.prompts,
            "evaluation_prompts": self.config.evaluation_prompts,
        }
        return {"source": "sandbox", "rows": rows, "sha256": hashlib.sha256(described.encode()).hexdigest()}

    def _key(self, *parts: str) -> str:
        return ":".join((str(self.config.world_seed), str(self.seed), *parts))

    def _prompts(self, key: str, count: int, *, held_out: bool) -> Iterator[Prompt]:
        """Families in turn, so that each has its share; `evaluation` alone has the held-out families."""
        # The evaluation prompts depend on the world alone: all seeds answer the same ones.
        seeded = f"{self.config.world_seed}:{key}" if held_out else self._key(key)
        rng = random.Random(f"prompts:{seeded}")
        families = FAMILIES if held_out else TRAINING_FAMILIES
        for index in range(count):
            yield make_prompt(families[index % len(families)], index, key, rng, self.world, held_out=held_out)

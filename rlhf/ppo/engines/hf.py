"""The default engine: the sampling loop of rlhf/ppo/rollout.py, run on the policy itself."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from rlhf.config import RolloutConfig
from rlhf.models.sharding import gathered
from rlhf.ppo.rollout import Rollout, generate


class HFEngine:
    def __init__(self, config: RolloutConfig, *, eos_token_id: int, logprobs: bool = False) -> None:
        self._config = config
        self._logprobs = logprobs
        self._eos_token_id = eos_token_id
        self._policy: Any = None

    def sync(self, policy: Any) -> None:
        self._policy = policy  # sampled from directly: no copy that could go stale

    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        with gathered(self._policy) if self._config.gather else nullcontext():
            return generate(
                self._policy,
                prompt_ids,
                rows,
                eos_token_id=self._eos_token_id,
                config=self._config,
                generator_seed=seed,
                logprobs=self._logprobs,
            )

    def close(self) -> None:
        self._policy = None

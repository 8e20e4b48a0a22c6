"""The interface of a rollout engine, and the one that rollout.engine names."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from rlhf.ppo.rollout import Rollout


class RolloutEngine(Protocol):
    """Draws responses from softmax(logits / rollout.temperature) of the policy, cut at rollout.max_new_tokens.

    Nothing else touches the distribution: no top-k, top-p or penalty, and never the model's generation_config. The
    tokenizer's end token alone ends a response, and stays in it.
    """

    def sync(self, policy: Any) -> None:
        """Make the next responses those of `policy` with the weights it has now."""

    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        """One response to each of these rows of prompt_ids, in their order; None: to all.

        The same for the same weights, prompts, rows and seed, up to rounding. But for `paged`, what is drawn for a row
        does not depend on the rows beside it: ranks that share a batch draw what one process would.

        Prompts leave room for rollout.max_new_tokens in the model's context.
        """

    def close(self) -> None:
        """Free what the engine holds; it is not used again."""

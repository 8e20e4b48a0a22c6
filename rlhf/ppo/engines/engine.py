"""The interface of a rollout engine, and the one that rollout.engine names."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Protocol

from rlhf.config import RolloutEngineName
from rlhf.ppo.rollout import Rollout

if TYPE_CHECKING:
    from rlhf.pipeline import StageContext
    from rlhf.ppo.experience import Roles


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


@contextmanager
def open_engine(context: StageContext, roles: Roles) -> Iterator[RolloutEngine]:
    """The engine of rollout.engine, closed at the end. Raises UserError where it cannot start."""
    engine = _start(context, roles)
    try:
        yield engine
    finally:
        engine.close()


def _start(context: StageContext, roles: Roles) -> RolloutEngine:
    config, eos = context.config, roles.tokenizer.eos_token_id
    match config.rollout.engine:
        case RolloutEngineName.hf:
            from rlhf.ppo.engines.hf import HFEngine

            return HFEngine(
                config.rollout,
                eos_token_id=eos,
                pad_token_id=roles.tokenizer.pad_token_id,
                logprobs=config.ppo.rollout_correction_cap > 0,
            )
        case RolloutEngineName.paged:
            from rlhf.ppo.engines.paged import PagedEngine

            return PagedEngine(config.rollout, eos_token_id=eos)
        case RolloutEngineName.vllm:
            from rlhf.ppo.engines.vllm_colocated import VLLMEngine

            return VLLMEngine(config, str(context.parents["policy"]), eos_token_id=eos, device=roles.device)
        case RolloutEngineName.vllm_server:
            from rlhf.ppo.engines.vllm_server import VLLMServerEngine

            return VLLMServerEngine(config, context.folder.path, tokenizer=roles.tokenizer)

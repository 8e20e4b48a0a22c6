"""Starts the rollout engine that rollout.engine names."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rlhf.config import RolloutEngineName
from rlhf.ppo.engines.engine import RolloutEngine

if TYPE_CHECKING:
    from rlhf.ppo.roles import Roles
    from rlhf.training.context import StageContext


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

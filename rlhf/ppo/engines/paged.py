"""Transformers' continuous batching on the policy itself: a waiting prompt takes a finished response's place at once.

Made for GPUs. On a CPU it works and is far slower than the default engine.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig
from transformers.utils.generic import is_flash_attention_requested

from rlhf.config import RolloutConfig
from rlhf.models.lora import unwrap_lora
from rlhf.models.sharding import gathered
from rlhf.ppo.rollout import Rollout

# Tokens in a block of the cache, and tokens of one forward pass. Flash attention wants blocks of 256; the others hold
# a mask of (tokens of the pass) x (tokens of the cache), so both are small for them.
FLASH_BLOCK, FLASH_TOKENS = 256, 8192
BLOCK, TOKENS = 32, 512


class PagedEngine:
    def __init__(self, config: RolloutConfig, *, eos_token_id: int) -> None:
        self._config = config
        self._eos_token_id = eos_token_id
        self._policy: Any = None

    def sync(self, policy: Any) -> None:
        self._policy = policy  # sampled from directly; its cache lives for one `generate`, so no keys go stale

    @torch.no_grad()
    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        if rows is not None:
            # One stream of random numbers serves all prompts of a call, so each rank needs its own.
            prompt_ids, seed = [prompt_ids[row] for row in rows], seed + min(rows, default=0)
        model = unwrap_lora(self._policy)
        with gathered(self._policy), _paged_attention(model), _own_random_numbers(model.device):
            manager = model.init_continuous_batching(
                generation_config=self._generation_config(),
                continuous_batching_config=self._batching_config(model, prompt_ids, seed),
            )
            # What `generate_batch` does, but every prompt waits before the thread starts: otherwise which of them share
            # the first pass, and so which random numbers each gets, would depend on how fast two threads run.
            request_ids = manager.add_requests(
                [list(ids) for ids in prompt_ids], max_new_tokens=self._config.max_new_tokens
            )
            manager.warmup()
            manager.start()
            try:
                results = _collect(manager, len(request_ids))
            finally:
                manager.stop(block=True)
                manager.destroy()
        responses = [list(results[request_id].generated_tokens) for request_id in request_ids]
        logprobs = [list(results[request_id].logprobs) for request_id in request_ids]
        return Rollout(responses, [ids[-1] == self._eos_token_id for ids in responses], logprobs)

    def close(self) -> None:
        self._policy = None

    def _generation_config(self) -> GenerationConfig:
        return GenerationConfig(
            do_sample=True,
            temperature=self._config.temperature,
            top_k=0,
            top_p=1.0,
            eos_token_id=self._eos_token_id,
            max_new_tokens=self._config.max_new_tokens,
        )

    def _batching_config(self, model: Any, prompt_ids: Sequence[Sequence[int]], seed: int) -> ContinuousBatchingConfig:
        """A cache that holds rollout.batch_size responses of full length, and no more of the memory than that."""
        flash = is_flash_attention_requested(model.config)
        block, tokens = (FLASH_BLOCK, FLASH_TOKENS) if flash else (BLOCK, TOKENS)
        rows = min(self._config.batch_size, len(prompt_ids))
        longest = max(map(len, prompt_ids)) + self._config.max_new_tokens
        return ContinuousBatchingConfig(
            block_size=block,
            num_blocks=rows * math.ceil(longest / block),
            max_batch_tokens=max(rows, tokens),
            max_requests_per_batch=rows,
            return_logprobs=True,
            seed=seed,
        )


def _collect(manager: Any, count: int) -> dict[str, Any]:
    """Finished requests by id. Raises RuntimeError where one failed or the thread died."""
    results: dict[str, Any] = {}
    while len(results) < count:
        result = manager.get_result(timeout=1)
        if result is not None and result.error is not None:
            raise RuntimeError(f"Continuous batching failed: {result.error}")
        if result is not None and result.is_finished():
            results[result.request_id] = result
        elif result is None and not manager.is_running():
            raise RuntimeError(f"Continuous batching stopped after {len(results)} of {count} responses.")
    return results


@contextmanager
def _paged_attention(model: Any) -> Iterator[None]:
    """The model in evaluation mode with the paged kind of its own attention; left alone, Transformers would look for a
    flash attention and quietly take that."""
    attention, was_training = model.config._attn_implementation, model.training
    model.set_attn_implementation(f"paged|{attention}")
    try:
        yield
    finally:
        model.set_attn_implementation(attention)
        model.train(was_training)


@contextmanager
def _own_random_numbers(device: torch.device) -> Iterator[None]:
    """Continuous batching seeds torch's global generators; they are put back."""
    with torch.random.fork_rng(devices=[device] if device.type == "cuda" else []):
        yield

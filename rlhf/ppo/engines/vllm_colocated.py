"""vLLM in the training process, beside the models that train. Not run on a GPU.

TRL's VLLMGeneration does the same for GPUs; its `sync_weights` fails on vLLM's CPU backend, which repacks weights, so
it cannot be tested without a GPU. vLLM's own `reload_weights` undoes and redoes the repacking, on either.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Sequence
from typing import Any

import torch

from rlhf.config import Config
from rlhf.errors import UserError
from rlhf.models.folders import resolve_model_path
from rlhf.models.lora import stored_state_dict
from rlhf.models.sharding import gathered
from rlhf.ppo.engines.vllm_sampling import request_seeds, sampling_fields
from rlhf.ppo.rollout import Rollout

_ENVIRONMENT = {
    "VLLM_ENABLE_V1_MULTIPROCESSING": "0",  # the engine in this process, where `sync` can hand it tensors
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_DO_NOT_TRACK": "1",
    "VLLM_LOGGING_LEVEL": "ERROR",
}


class VLLMEngine:
    """Holds a second copy of the policy's weights, in model.dtype, and rollout.vllm.kv_cache_gib of keys and values.

    model_path: a folder or hub id of the policy's architecture; its weights are replaced by the first `sync`.
    Raises UserError where vLLM does not take the model or the memory does not do.
    """

    def __init__(self, config: Config, model_path: str, *, eos_token_id: int, device: torch.device) -> None:
        os.environ.update(_ENVIRONMENT)
        from vllm import LLM

        self._config = config.rollout
        self._eos_token_id = eos_token_id
        longest = config.data.max_prompt_tokens + config.rollout.max_new_tokens
        try:
            self._llm: Any = LLM(
                resolve_model_path(model_path),
                skip_tokenizer_init=True,  # ids in, ids out
                dtype=config.model.dtype.value,
                trust_remote_code=config.model.trust_remote_code,
                generation_config="vllm",  # rather than the model's own
                logprobs_mode="processed_logprobs",  # after the temperature
                max_model_len=longest,
                max_num_seqs=config.rollout.batch_size,
                kv_cache_memory_bytes=int(config.rollout.vllm.kv_cache_gib * 2**30),
                enforce_eager=device.type == "cpu",  # there is nothing to capture, and compiling takes a minute
                seed=0,  # of the weights' first, unused values; each request has a seed of its own
            )
        except (ValueError, RuntimeError, NotImplementedError) as error:
            reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
            hint = ""
            if "cache" in reason.lower():  # vLLM names settings of its own, which are not ours
                gib = config.rollout.vllm.kv_cache_gib
                hint = f" rollout.vllm.kv_cache_gib is {gib:g}; a response of {longest} tokens needs more."
            raise UserError(f"rollout.engine=vllm does not start: {reason}{hint}") from error

    def sync(self, policy: Any) -> None:
        with gathered(policy):
            weights = stored_state_dict(policy)
            self._llm.collective_rpc("reload_weights", kwargs={"weights_iterator": iter(weights.items())})
        # Keys and values of prompts seen before belong to the old weights.
        if not self._llm.reset_prefix_cache():
            raise RuntimeError("vLLM kept its prefix cache, which belongs to weights that are gone.")

    def generate(self, prompt_ids: Sequence[Sequence[int]], rows: Sequence[int] | None = None, *, seed: int) -> Rollout:
        from vllm import SamplingParams

        rows = range(len(prompt_ids)) if rows is None else rows
        seeds = request_seeds(seed, len(prompt_ids))
        asked = [
            SamplingParams(
                **sampling_fields(self._config, eos_token_id=self._eos_token_id, seed=seeds[row]), detokenize=False
            )
            for row in rows
        ]
        prompts = [{"prompt_token_ids": list(prompt_ids[row])} for row in rows]
        outputs = self._llm.generate(prompts, asked, use_tqdm=False)
        responses = [list(output.outputs[0].token_ids) for output in outputs]
        logprobs = [
            [position[token].logprob for token, position in zip(ids, output.outputs[0].logprobs, strict=True)]
            for ids, output in zip(responses, outputs, strict=True)
        ]
        return Rollout(responses, [ids[-1] == self._eos_token_id for ids in responses], logprobs)

    def close(self) -> None:
        from vllm.distributed.parallel_state import cleanup_dist_env_and_memory

        del self._llm
        cleanup_dist_env_and_memory()
        gc.collect()

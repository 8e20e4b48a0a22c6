"""What is asked of vLLM, in this process or over HTTP alike: our distribution and nothing else."""

from __future__ import annotations

from typing import Any

import torch

from rlhf.config import RolloutConfig


def sampling_fields(config: RolloutConfig, *, eos_token_id: int, seed: int) -> dict[str, Any]:
    """Fields of vLLM's SamplingParams, and of its HTTP requests, for one response.

    Every field that the model's generation_config could fill in is given. `ignore_eos` leaves out the end tokens that
    the model's folder names, of which there may be several; ours is a stop token, which vLLM keeps in the response.
    """
    return {
        "n": 1,
        "temperature": config.temperature,
        "top_p": 1.0,
        "top_k": 0,  # all
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "presence_penalty": 0.0,
        "frequency_penalty": 0.0,
        "ignore_eos": True,
        "stop_token_ids": [eos_token_id],
        "max_tokens": config.max_new_tokens,
        "seed": seed,
        "logprobs": 0,  # of the sampled token alone
    }


def request_seeds(seed: int, count: int) -> list[int]:
    """A seed for each response. vLLM draws all requests of one seed with the same random numbers."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(2**62, (count,), generator=generator).tolist()

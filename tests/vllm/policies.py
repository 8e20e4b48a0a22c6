"""Policies that vLLM's CPU kernels take, and how far its log-probs are from the trainer's."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from rlhf.config import DType, ModelConfig
from rlhf.models.load import load_causal_lm
from rlhf.models.save import save_model
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.rollout import Rollout
from tests.support.tiny import save_tiny_model

EOS = 0
PROMPTS = [[5, 6, 7, 8, 9, 10, 11], [4], [12, 13, 14], [9, 9, 9, 9, 9], [3, 4], [7, 8, 9, 10]]
# Largest difference of a log-prob, nats. A log-prob sums up a logit and a log-sum-exp: in float32 both are right to
# about 1e-5; in bfloat16, with 8 bits of mantissa, logits of size 4 are right to 4 * 2^-9 each way and hidden states,
# rounded alike in both programs but summed in another order, add as much again.
BOUND = {DType.float32: 1e-4, DType.bfloat16: 5e-2}


def save_sharp_model(folder: Path, architecture: str, *, tied: bool = False) -> str:
    """A random model with heads of 32 numbers, vLLM's least on a CPU, whose next token is not all but uniform."""
    path = save_tiny_model(folder, architecture, tied=tied, heads=1, pad=True)
    model, tokenizer = load_causal_lm(path, ModelConfig()), load_tokenizer(path)
    with torch.no_grad():
        for weight in model.parameters():
            if weight.dim() > 1:
                weight.mul_(6)
    save_model(model, tokenizer, folder)
    return path


def update(policy: Any, *, seed: int = 1) -> None:
    """One step of an optimizer on every weight, of about the size that PPO takes."""
    torch.manual_seed(seed)
    optimizer = torch.optim.Adam(policy.parameters(), lr=3e-3)
    policy(torch.randint(1, 100, (4, 12))).logits.float().log_softmax(-1)[..., 7].mean().neg().backward()
    optimizer.step()


def largest_difference(policy: Any, drawn: Rollout, temperature: float = 1.0) -> float:
    """Between the sampler's log-probs and the policy's own, from one plain forward a response."""
    assert drawn.logprobs is not None
    return max(
        float((_logprobs(policy, prompt, response, temperature) - torch.tensor(logprobs)).abs().max())
        for prompt, response, logprobs in zip(PROMPTS, drawn.response_ids, drawn.logprobs, strict=True)
    )


@torch.no_grad()
def _logprobs(policy: Any, prompt: list[int], response: list[int], temperature: float) -> torch.Tensor:
    logits = policy(torch.tensor([prompt + response])).logits[0, len(prompt) - 1 : -1].float() / temperature
    return logits.log_softmax(-1).gather(-1, torch.tensor(response)[:, None])[:, 0]

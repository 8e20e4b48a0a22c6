"""Tokens drawn with one CUDA graph for all steps: on a GPU, launching the kernels can take longer than they do.

A graph replays the same kernels on the same memory. So the cache is Transformers' static one, all columns are attended
to under a mask that opens one more each step, and finished rows stay in the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from transformers import PreTrainedModel, StaticCache
from transformers.cache_utils import StaticLayer

from rlhf.errors import UserError
from rlhf.ppo.decoding import inverse_cdf
from rlhf.rl.logprobs import token_logprobs

_ASK_FINISHED_EVERY = 16  # steps: asking waits for the GPU
_WARM_UP_STEPS = 2  # before capture, so that libraries allocate their workspaces outside of the graph


def decode_graphed(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    eos_token_id: int,
    temperature: float,
    logprobs: bool,
) -> tuple[Tensor, Tensor]:
    """What `rlhf.ppo.decoding.decode` gives, up to rounding. On a CPU the same steps run without a graph.

    Raises UserError for a model with layers that do not attend to everything before.
    """
    device = model.device
    batch, new_tokens = uniforms.shape
    width = max(map(len, prompt_ids))
    lengths = torch.tensor([len(ids) for ids in prompt_ids], device=device)
    uniforms = uniforms.to(device)
    sampled = torch.full((batch, new_tokens), eos_token_id, device=device)
    drawn = torch.zeros(batch, new_tokens, device=device)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)

    cache = StaticCache(config=model.config, max_cache_len=width + new_tokens)
    if any(type(layer) is not StaticLayer for layer in cache.layers):
        raise UserError(
            f"rollout.cuda_graphs=true does not run {type(model).__name__}, whose layers do not all attend to the "
            "whole sequence; set rollout.cuda_graphs=false."
        )
    ids = torch.tensor([[0] * (width - len(row)) + list(row) for row in prompt_ids], device=device)
    positions = torch.arange(width, device=device) - (width - lengths)[:, None]
    logits = model(
        input_ids=ids,
        attention_mask=positions >= 0,
        position_ids=positions.clamp(min=0),
        past_key_values=cache,
        use_cache=True,
        logits_to_keep=1,
    ).logits[:, -1]
    step = _Step(model, cache, positions >= 0, lengths)
    for t in range(new_tokens):
        tokens = inverse_cdf(logits, uniforms[:, t], temperature)
        sampled[:, t] = tokens
        if logprobs:
            drawn[:, t] = token_logprobs(logits, tokens, temperature=temperature)
        finished |= tokens == eos_token_id
        if t + 1 == new_tokens or (t % _ASK_FINISHED_EVERY == 0 and bool(finished.all())):
            break
        logits = step(tokens)
    return sampled, drawn


class _Step:
    """The model's forward pass for one more token a row; everything it reads and writes stays where it is."""

    def __init__(self, model: PreTrainedModel, cache: StaticCache, prompt_mask: Tensor, lengths: Tensor) -> None:
        """prompt_mask: (batch, width) bool, what is filled in the cache; lengths: (batch,) of the prompts."""
        batch, self._next = prompt_mask.shape
        self._model, self._cache = model, cache
        self._tokens = torch.zeros(batch, 1, dtype=torch.int64, device=model.device)
        self._positions = lengths[:, None] - 1
        # Added to attention's scores, as a mask of four dimensions that Transformers passes on untouched.
        shut = torch.finfo(model.dtype).min
        self._mask = torch.full((batch, 1, 1, cache.get_max_length()), shut, dtype=model.dtype, device=model.device)
        self._mask[:, 0, 0, : self._next].masked_fill_(prompt_mask, 0.0)
        self._run = _captured(self._forward, self._rewind) if model.device.type == "cuda" else self._forward

    def __call__(self, tokens: Tensor) -> Tensor:
        """Logits behind these tokens (batch,), (batch, vocab); overwritten by the next call."""
        self._tokens.copy_(tokens[:, None])
        self._positions.add_(1)
        self._mask[..., self._next] = 0.0
        self._next += 1
        return self._run()

    def _forward(self) -> Tensor:
        logits: Tensor = self._model(
            input_ids=self._tokens,
            attention_mask=self._mask,
            position_ids=self._positions,
            past_key_values=self._cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits
        return logits[:, -1]

    def _rewind(self) -> None:
        """Forget steps that were run for practice: their columns are written again before the mask opens them."""
        for layer in self._cache.layers:
            assert isinstance(layer, StaticLayer)
            assert isinstance(layer.cumulative_length, Tensor)
            layer.cumulative_length.fill_(self._next)


def _captured(forward: Callable[[], Tensor], rewind: Callable[[], None]) -> Callable[[], Tensor]:
    practice = torch.cuda.Stream()
    practice.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(practice):
        for _ in range(_WARM_UP_STEPS):
            forward()
            rewind()
    torch.cuda.current_stream().wait_stream(practice)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        logits = forward()
    rewind()

    def replay() -> Tensor:
        graph.replay()
        return logits

    return replay

"""Tokens drawn one after the other with a cache that shrinks as rows finish."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor
from transformers import DynamicCache, PreTrainedModel
from transformers.cache_utils import DynamicLayer

from rlhf.models.batches import ROW_MULTIPLE, round_up
from rlhf.rl.logprobs import token_logprobs
from rlhf.runtime.distributed import any_rank

# Finished rows leave the batch when this share of it has finished: not at once, for leaving costs a copy of the cache.
# Some stay, to make a multiple of ROW_MULTIPLE: oneDNN builds a kernel for each new size of a batch.
DROP_FINISHED_AT = 0.2
# Rows per prefill: sorted by length, so that short prompts are not padded to the batch's longest.
PREFILL_ROWS = 16


def decode(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    uniforms: Tensor,
    *,
    eos_token_id: int,
    temperature: float,
    logprobs: bool,
    together: bool = False,
) -> tuple[Tensor, Tensor]:
    """Sampled tokens of one batch, (batch, new_tokens) int64; what follows a row's first end token means nothing.

    prompt_ids: longest first.  uniforms: (batch, new_tokens) float64 in [0, 1).
    together:   every rank makes as many passes as the one that needs the most.
    Beside them their log-probs, (batch, new_tokens) float32, which mean nothing unless `logprobs`.
    """
    device = model.device
    batch, new_tokens = uniforms.shape
    width = len(prompt_ids[0])
    lengths = torch.tensor([len(ids) for ids in prompt_ids], device=device)
    uniforms = uniforms.to(device)
    sampled = torch.full((batch, new_tokens), eos_token_id, device=device)
    drawn = torch.zeros(batch, new_tokens, device=device)
    # Left padding: column `width + t` is every row's t-th new token.
    mask = torch.arange(width + new_tokens, device=device) >= (width - lengths)[:, None]
    rows = torch.arange(batch, device=device)
    finished = torch.zeros(batch, dtype=torch.bool, device=device)

    rows_at_once = len(prompt_ids) if together else PREFILL_ROWS
    cache, logits = _prefill(model, prompt_ids, rows_at_once, capacity=width + new_tokens)
    for step in range(new_tokens):
        tokens = inverse_cdf(logits, uniforms[rows, step], temperature)
        sampled[rows, step] = tokens
        if logprobs:
            drawn[rows, step] = token_logprobs(logits, tokens, temperature=temperature)
        finished |= tokens == eos_token_id
        count = int(finished.sum())
        done = count == len(rows)
        if step + 1 == new_tokens or (done if not together else not any_rank(not done)):
            break
        left = round_up(max(len(rows) - count, 1), ROW_MULTIPLE)
        if count >= DROP_FINISHED_AT * len(rows) and left < len(rows):
            keep = finished.int().argsort(stable=True)[:left].sort().values
            cache.batch_select_indices(keep)
            rows, tokens, mask, finished = rows[keep], tokens[keep], mask[keep], finished[keep]
        logits = model(
            input_ids=tokens[:, None],
            attention_mask=mask[:, : width + step + 1],
            position_ids=(lengths[rows] + step)[:, None],
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
        ).logits[:, -1]
    return sampled, drawn


decode_together = functools.partial(decode, together=True)


def _prefill(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    rows_at_once: int,
    *,
    capacity: int,
) -> tuple[DynamicCache, Tensor]:
    """The prompts' cache, left-padded to the longest, and the logits after each prompt's last token, (batch, vocab)."""
    device = model.device
    width = len(prompt_ids[0])
    cache = _empty_cache(model, capacity)
    joinable = all(isinstance(layer, _BufferedLayer) for layer in cache.layers)
    rows_at_once = rows_at_once if joinable else len(prompt_ids)
    logits = []
    for start in range(0, len(prompt_ids), rows_at_once):
        part = prompt_ids[start : start + rows_at_once]
        part_width = len(part[0])
        # Which token fills masked columns makes no difference; every vocabulary has the first.
        ids = torch.tensor([[0] * (part_width - len(row)) + list(row) for row in part], device=device)
        lengths = torch.tensor([len(row) for row in part], device=device)
        columns = torch.arange(part_width, device=device)
        positions = columns - (part_width - lengths)[:, None]
        part_cache = cache if len(part) == len(prompt_ids) else DynamicCache(config=model.config)
        output = model(
            input_ids=ids,
            attention_mask=positions >= 0,
            position_ids=positions.clamp(min=0),
            past_key_values=part_cache,
            use_cache=True,
            logits_to_keep=1,
        )
        logits.append(output.logits[:, -1])
        if part_cache is not cache:
            for layer, part_layer in zip(cache.layers, part_cache.layers, strict=True):
                assert isinstance(layer, _BufferedLayer)
                assert isinstance(part_layer, DynamicLayer)
                layer.put_rows(start, len(prompt_ids), width, part_layer)
    return cache, torch.cat(logits)


def inverse_cdf(logits: Tensor, uniforms: Tensor, temperature: float) -> Tensor:
    """Tokens (batch,) at `uniforms` (batch,) of the cumulative softmax(logits / temperature).

    The sum runs in float64: in float32 a vocabulary's rarest tokens would be lost to rounding.
    """
    probabilities = (logits.float() / temperature).softmax(-1)
    cumulative = probabilities.cumsum(-1, dtype=torch.float64)
    thresholds = (uniforms * cumulative[:, -1])[:, None]
    # right=True: the first token whose sum exceeds the threshold, so never one of probability 0.
    return torch.searchsorted(cumulative, thresholds, right=True)[:, 0].clamp(max=logits.shape[-1] - 1)


class _BufferedLayer(DynamicLayer):
    """A cache layer of known final length: new keys are written in place where DynamicLayer copies all it has."""

    def __init__(self, capacity: int) -> None:
        super().__init__()
        self.capacity = capacity
        self.length = 0

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        self.dtype, self.device = key_states.dtype, key_states.device
        self._allocate(key_states, value_states, key_states.shape[0])

    def _allocate(self, keys: Tensor, values: Tensor, batch: int) -> None:
        self.key_buffer = keys.new_zeros(batch, keys.shape[1], self.capacity, keys.shape[3])
        self.value_buffer = values.new_zeros(batch, values.shape[1], self.capacity, values.shape[3])
        self.is_initialized = True

    def _show(self) -> None:
        self.keys = self.key_buffer[:, :, : self.length]
        self.values = self.value_buffer[:, :, : self.length]

    def update(
        self, key_states: Tensor, value_states: Tensor, *args: object, **kwargs: object
    ) -> tuple[Tensor, Tensor]:
        if not self.is_initialized:
            self.lazy_initialization(key_states, value_states)
        end = self.length + key_states.shape[-2]
        self.key_buffer[:, :, self.length : end] = key_states
        self.value_buffer[:, :, self.length : end] = value_states
        self.length = end
        self._show()
        return self.keys, self.values  # type: ignore[return-value]

    def put_rows(self, start: int, batch: int, width: int, rows: DynamicLayer) -> None:
        """Write `rows` from row `start` of `batch`, ending at column `width`; what lies left of them stays 0."""
        assert rows.keys is not None
        assert rows.values is not None
        if not self.is_initialized:
            self._allocate(rows.keys, rows.values, batch)
            self.dtype, self.device = rows.keys.dtype, rows.keys.device
            self.length = width
            self._show()
        count, _, length, _ = rows.keys.shape
        self.key_buffer[start : start + count, :, width - length : width] = rows.keys
        self.value_buffer[start : start + count, :, width - length : width] = rows.values

    def batch_select_indices(self, indices: Tensor) -> None:
        # Only what is filled: the rest of the buffer is written before it is read.
        for name in ("key_buffer", "value_buffer"):
            old = getattr(self, name)
            new = old.new_empty(len(indices), *old.shape[1:])
            new[:, :, : self.length] = old[indices, :, : self.length]
            setattr(self, name, new)
        self._show()


def _empty_cache(model: PreTrainedModel, capacity: int) -> DynamicCache:
    """The model's cache with full-attention layers buffered; sliding-window and other layers stay Transformers' own."""
    cache = DynamicCache(config=model.config)
    cache.layers = [_BufferedLayer(capacity) if type(layer) is DynamicLayer else layer for layer in cache.layers]
    return cache

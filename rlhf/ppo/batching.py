"""Prompts with their responses as micro-batches without much padding, and the models' outputs at response positions."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from rlhf.models.batches import ROW_MULTIPLE, WIDTH_MULTIPLE, length_buckets, round_up
from rlhf.models.flat import FlatRows, flat_attention, flat_groups, flatten
from rlhf.models.last_layer import last_layer_only_at
from rlhf.models.lora import unwrap_lora
from rlhf.models.scores import hidden_states
from rlhf.rl.logprobs import entropy, token_logprobs
from rlhf.runtime import distributed

# Elements of logits that are made at one time: 256 MiB in float32, of which a loss holds a few times that.
LOGITS_AT_ONCE = 2**26
# Logits are the head's product with the last hidden states and nothing more, so they can be made apart from the rest.
HEAD_IS_ALL = frozenset({"bloom", "gpt2", "gpt_neox", "gptj", "llama", "mistral", "opt", "qwen2", "qwen3"})


@dataclass(frozen=True)
class Sequences:
    """Prompts with their responses. A response's last token is in no input: nothing is predicted from it."""

    input_ids: Tensor  # (batch, width) int64: prompt, response less its last token, then zeros
    lengths: list[int]  # of each row of input_ids, without the zeros
    prompt_lengths: Tensor  # (batch,) int64
    response_ids: Tensor  # (batch, response) int64, zeros behind each
    response_mask: Tensor  # (batch, response) bool, True on response tokens
    flat: bool = (
        False  # micro-batches are flat, see rlhf/models/flat.py; all models of the batch must be able to run so
    )


@dataclass(frozen=True)
class MicroBatch:
    """Some rows for one forward pass; `tokens` counts their response tokens, row by row."""

    rows: Tensor  # (rows,) int64, of the batch
    input_ids: Tensor  # (rows rounded up, width) int64, padded on the right; or (1, all tokens) where flat
    before: Tensor  # (tokens rounded up,) int64, where in the flattened input_ids each response token is predicted
    response_ids: Tensor  # (tokens,) int64
    response_mask: Tensor  # (rows, response) bool
    flat: FlatRows | None = None

    def select(self, x: Tensor) -> Tensor:
        """This micro-batch's entries of a (batch, response) tensor, (tokens,)."""
        return x[self.rows][self.response_mask]


def sequences(
    prompt_ids: Sequence[Sequence[int]],
    response_ids: Sequence[Sequence[int]],
    *,
    device: Any,
    context: int | None,
    flat: bool = False,
) -> Sequences:
    """Pack prompts and responses, both without padding; neither may be empty. No padding goes beyond `context`."""
    assert all(len(ids) > 0 for ids in (*prompt_ids, *response_ids)), "prompts and responses have at least one token"
    inputs = [[*prompt, *response[:-1]] for prompt, response in zip(prompt_ids, response_ids, strict=True)]
    response_lengths = torch.tensor([len(ids) for ids in response_ids])
    longest = int(response_lengths.max())
    width = round_up(max(map(len, inputs)), WIDTH_MULTIPLE)
    return Sequences(
        input_ids=_padded(inputs, width if context is None else min(width, context)).to(device),
        lengths=[len(ids) for ids in inputs],
        prompt_lengths=torch.tensor([len(ids) for ids in prompt_ids], device=device),
        response_ids=_padded(response_ids, longest).to(device),
        response_mask=(torch.arange(longest) < response_lengths[:, None]).to(device),
        flat=flat,
    )


def micro_batches(batch: Sequences, rows: Sequence[int], token_budget: int) -> list[MicroBatch]:
    """The rows sorted by length and cut where the token budget is spent or, if not flat, padding would grow too much.

    The least is ROW_MULTIPLE rows, BLOCK_ROWS if flat, even where those are more tokens than the budget.
    """
    in_order = sorted(rows)
    lengths = [batch.lengths[row] for row in in_order]
    if batch.flat:
        groups = flat_groups(lengths, token_budget)
    else:
        groups = length_buckets(lengths, token_budget, least_rows=ROW_MULTIPLE)
    return [_micro_batch(batch, [in_order[i] for i in group]) for group in groups]


def own_micro_batches(
    batch: Sequences, rows: Sequence[int], token_budget: int, *, even: bool
) -> list[tuple[MicroBatch, bool]]:
    """The micro-batches of this rank's share of the rows, and whether each counts.

    even: every rank has as many as the one with the most, for models whose passes need all ranks; those that fill up
    repeat a row and do not count.
    """
    own = micro_batches(batch, distributed.share(rows), token_budget)
    if not even:
        return [(micro, True) for micro in own]
    idle = _micro_batch(batch, [rows[0]])
    return [(micro or idle, micro is not None) for micro in distributed.even(own)]


def _micro_batch(batch: Sequences, group: list[int]) -> MicroBatch:
    device = batch.input_ids.device
    rows = torch.tensor(group, device=device)
    flat = None
    if batch.flat:
        flat = flatten([batch.input_ids[row, : batch.lengths[row]].tolist() for row in group], device=device)
        input_ids, starts = flat.input_ids, flat.starts
    else:
        longest = max(batch.lengths[row] for row in group)
        width = min(round_up(longest, WIDTH_MULTIPLE), batch.input_ids.shape[1])
        input_ids = torch.zeros(round_up(len(group), ROW_MULTIPLE), width, dtype=torch.int64, device=device)
        input_ids[: len(group)] = batch.input_ids[rows, :width]
        starts = torch.arange(len(group), device=device) * width
    mask = batch.response_mask[rows]
    # The state that response token t is drawn in ends one position before it, on the prompt's last token for t = 0.
    first = starts + batch.prompt_lengths[rows] - 1
    before = (first[:, None] + torch.arange(mask.shape[1], device=device))[mask]
    spare = before.new_zeros(round_up(len(before), 64) - len(before))
    return MicroBatch(rows, input_ids, torch.cat([before, spare]), batch.response_ids[rows][mask], mask, flat)


def response_logprobs(
    model: Any, micro: MicroBatch, temperature: float, *, with_entropy: bool = False
) -> tuple[Tensor, Tensor | None]:
    """Log-probs of the response tokens and, if asked, the entropy of what each was drawn from; (tokens,) float32 each.

    Where all logits together would be more than LOGITS_AT_ONCE, they are made some tokens at a time, and once more in
    the backward pass, and never held whole.
    """
    tokens = micro.response_ids
    config = unwrap_lora(model).config
    at_once = max(LOGITS_AT_ONCE // config.vocab_size, 1)
    if len(tokens) <= at_once or config.model_type not in HEAD_IS_ALL:
        return _of_logits(response_logits(model, micro), tokens, temperature, with_entropy)
    with _inputs(model, micro) as given:
        hidden = hidden_states(model, **given).flatten(0, 1)[micro.before[: len(tokens)]]
    head = unwrap_lora(model).get_output_embeddings()

    def of_chunk(states: Tensor, drawn: Tensor) -> tuple[Tensor, Tensor | None]:
        return _of_logits(head(states), drawn, temperature, with_entropy)

    parts = [
        checkpoint(of_chunk, *chunk, use_reentrant=False, preserve_rng_state=False)
        for chunk in zip(hidden.split(at_once), tokens.split(at_once), strict=True)
    ]
    logprobs, entropies = zip(*parts, strict=True)
    return torch.cat(logprobs), torch.cat(entropies) if with_entropy else None


def _of_logits(logits: Tensor, tokens: Tensor, temperature: float, with_entropy: bool) -> tuple[Tensor, Tensor | None]:
    logprobs = token_logprobs(logits, tokens, temperature=temperature)
    return logprobs, entropy(logits, temperature=temperature) if with_entropy else None


def response_logits(model: Any, micro: MicroBatch) -> Tensor:
    """Logits that each response token was drawn from, (tokens, vocab) in the model's dtype.

    The model runs whole, so that what it does to logits after its head is done; only its head sees fewer positions.
    """
    with _inputs(model, micro) as given, _head_only_at(unwrap_lora(model).get_output_embeddings(), micro.before):
        logits: Tensor = model(**given, use_cache=False).logits
    return logits[0, : len(micro.response_ids)]


def response_values(model: Any, micro: MicroBatch) -> Tensor:
    """The value of the state each response token was drawn in, (tokens,) float32."""
    with _inputs(model, micro) as given:
        hidden = hidden_states(model, **given).flatten(0, 1)[micro.before]
    head: Any = unwrap_lora(model).score
    values: Tensor = head(hidden)
    return values[: len(micro.response_ids), 0].float()


@contextmanager
def _inputs(model: Any, micro: MicroBatch) -> Iterator[dict[str, Any]]:
    """Keyword arguments of a forward pass that is made inside, and read at `micro.before`."""
    with last_layer_only_at(model, micro.before[: len(micro.response_ids)]):
        if micro.flat is None:
            yield {"input_ids": micro.input_ids}
        else:
            with flat_attention(model, micro.flat) as given:
                yield {"input_ids": micro.input_ids, "position_ids": micro.flat.position_ids, **given}


@contextmanager
def _head_only_at(head: nn.Module, positions: Tensor) -> Iterator[None]:
    def select(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (inputs[0].flatten(0, 1)[positions][None],)

    handle = head.register_forward_pre_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _padded(rows: Sequence[Sequence[int]], width: int) -> Tensor:
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])

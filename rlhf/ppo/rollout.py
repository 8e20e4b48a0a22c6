"""Responses sampled from a model: exactly softmax(logits / temperature), nothing else applied."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from rlhf.config import RolloutConfig
from rlhf.data.encoding import context_of
from rlhf.data.records import Prompt, Sampler
from rlhf.errors import UserError
from rlhf.models.sharding import needs_all_ranks
from rlhf.ppo.decoding import decode, decode_together
from rlhf.ppo.graphed_decoding import decode_graphed
from rlhf.runtime.distributed import from_every_rank
from rlhf.runtime.progress import Progress
from rlhf.runtime.progress import progress as progress_bar

if TYPE_CHECKING:
    from rlhf.data.templates import ChatTemplate


@dataclass(frozen=True)
class Rollout:
    """Responses in the order of their prompts."""

    response_ids: list[list[int]]  # without padding; the last one is the end token where `ended`
    ended: list[bool]  # False: cut at rollout.max_new_tokens
    logprobs: list[list[float]] | None = None  # the sampler's own, of each token, temperature in; None: not asked


@torch.no_grad()
def generate(
    model: PreTrainedModel,
    prompt_ids: Sequence[Sequence[int]],
    rows: Sequence[int] | None = None,
    *,
    eos_token_id: int,
    config: RolloutConfig,
    generator_seed: int,
    progress: str | None = None,
    logprobs: bool = False,
) -> Rollout:
    """One response for each prompt, drawn from softmax(logits / config.temperature) in float32.

    rows: the prompts to answer, by their places in `prompt_ids`, where not all; the responses are in their order.
    Every prompt has its own stream of uniform numbers, fixed by `generator_seed` and its place in `prompt_ids`; token t
    is the inverse of the cumulative distribution at the stream's t-th number. So neither batching nor the dropping of
    finished rows changes what is drawn, beyond rounding. The model's own generation_config is never read.
    `progress` is the description of a bar over responses; None shows none. `logprobs` asks for those of what is drawn.
    Raises UserError when a prompt and config.max_new_tokens do not fit the model's context.
    """
    longest = max((len(ids) for ids in prompt_ids), default=0)
    context = context_of(model.config)
    if context is not None and longest + config.max_new_tokens > context:
        raise UserError(
            f"A prompt of {longest} tokens and rollout.max_new_tokens={config.max_new_tokens} do not fit the model's "
            f"context of {context}; lower rollout.max_new_tokens or data.max_prompt_tokens."
        )
    assert all(len(ids) > 0 for ids in prompt_ids), "a prompt has at least one token"
    generator = torch.Generator().manual_seed(generator_seed)
    uniforms = torch.rand((len(prompt_ids), config.max_new_tokens), generator=generator, dtype=torch.float64)
    if rows is not None:
        prompt_ids, uniforms = [prompt_ids[row] for row in rows], uniforms[list(rows)]
    by_length = sorted(range(len(prompt_ids)), key=lambda i: len(prompt_ids[i]), reverse=True)
    responses: list[list[int]] = [[] for _ in prompt_ids]
    responses_logprobs: list[list[float]] | None = [[] for _ in prompt_ids] if logprobs else None
    bar: Progress[None] = progress_bar(
        len(prompt_ids), progress or "", "response", enabled=progress is not None, leave=False
    )
    batches = [by_length[start : start + config.batch_size] for start in range(0, len(by_length), config.batch_size)]
    draw = decode_graphed if config.cuda_graphs else decode
    if needs_all_ranks(model):
        batches += [[]] * (max(from_every_rank(len(batches))) - len(batches))
        draw = decode_together
    with _evaluating(model), bar:
        for batch in batches:
            tokens, batch_logprobs = draw(
                model,
                [prompt_ids[i] for i in batch] or [[eos_token_id]],
                uniforms[batch] if batch else torch.zeros(1, config.max_new_tokens, dtype=torch.float64),
                eos_token_id=eos_token_id,
                temperature=config.temperature,
                logprobs=logprobs,
            )
            for row, sampled in zip(batch, tokens.tolist(), strict=True):
                responses[row] = sampled[: sampled.index(eos_token_id) + 1] if eos_token_id in sampled else sampled
            if responses_logprobs is not None:
                for row, drawn in zip(batch, batch_logprobs.tolist(), strict=True):
                    responses_logprobs[row] = drawn[: len(responses[row])]
            bar.update(len(batch))
    return Rollout(responses, [ids[-1] == eos_token_id for ids in responses], responses_logprobs)


def sampler(
    model: PreTrainedModel,
    template: ChatTemplate,
    tokenizer: PreTrainedTokenizerBase,
    config: RolloutConfig,
    seed: int,
    *,
    show_progress: bool = True,
) -> Sampler:
    """A `records.Sampler`: texts of `counts[i]` responses to `prompts[i]`, the same for the same prompts and seed."""

    def sample(prompts: Sequence[Prompt], counts: Sequence[int]) -> list[list[str]]:
        # A function of what is asked, not of how often: two calls with other prompts do not share random numbers.
        asked = hashlib.sha256("\n".join([str(seed), *(prompt.id for prompt in prompts)]).encode())
        ids = [template.prompt_ids(prompt) for prompt in prompts]
        rollout = generate(
            model,
            [ids[i] for i, count in enumerate(counts) for _ in range(count)],
            eos_token_id=tokenizer.eos_token_id,
            config=config,
            generator_seed=int.from_bytes(asked.digest()[:7], "big"),
            progress="reward: sampling completions" if show_progress else None,
        )
        texts = iter([template.decode(response) for response in rollout.response_ids])
        return [[next(texts) for _ in range(count)] for count in counts]

    return sample


@contextmanager
def _evaluating(model: PreTrainedModel) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)

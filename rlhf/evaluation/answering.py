"""Candidates answer the held-out prompts, one model in memory at a time, with the same random numbers for all."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from rlhf import distributed
from rlhf.config import Config
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import DataSource, Prompt
from rlhf.data.templates import ChatTemplate
from rlhf.evaluation.comparison import KL_FROM

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


@dataclass(frozen=True)
class Generated:
    """One candidate's responses, in the order of the prompts."""

    tokenizer: PreTrainedTokenizerBase
    prompt_ids: list[list[int]]
    response_ids: list[list[int]]  # the end token is the last one where `ended`
    ended: list[bool]
    texts: list[str]
    logprobs: list[float]  # log p(response | prompt) under the candidate itself, nats, temperature 1
    text_loss: float | None  # on held-out documents, nats a token; None where the data has none


def usable_prompts(
    paths: Mapping[str, str], prompts: Sequence[Prompt], config: Config, bad_rows: BadRows
) -> list[Prompt]:
    """The prompts that every candidate has room to answer, in their order; the others are bad rows."""
    from transformers import AutoConfig

    from rlhf.models import load_tokenizer, resolve_model_path

    usable = list(prompts)
    trust = config.model.trust_remote_code
    for path in paths.values():
        template = ChatTemplate(load_tokenizer(path, trust_remote_code=trust), config.data.template)
        context = context_of(AutoConfig.from_pretrained(resolve_model_path(path), trust_remote_code=trust))
        encoder = Encoder(template, config.data, bad_rows, context=context)
        usable = [encoded.prompt for encoded in encoder.prompts(usable, room=config.rollout.max_new_tokens)]
    return usable


def answer(path: str, name: str, prompts: Sequence[Prompt], data: DataSource, config: Config) -> Generated:
    """Sampled responses of the model at `path`, at compare.temperature, and its loss on the data's documents.

    Every rank draws its share, and gets all of them.
    """
    from rlhf.engine import pick_device
    from rlhf.evaluation.kl import TOKEN_BUDGET, response_logprobs
    from rlhf.evaluation.text_loss import held_out_blocks, text_loss
    from rlhf.models import load_causal_lm, load_tokenizer
    from rlhf.ppo.rollout import generate

    tokenizer = load_tokenizer(path, trust_remote_code=config.model.trust_remote_code)
    template = ChatTemplate(tokenizer, config.data.template)
    prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
    temperature = config.compare.temperature or config.rollout.temperature
    model = load_causal_lm(path, config.model).to(pick_device(config.launch))  # type: ignore[arg-type]
    rollout = generate(
        model,
        prompt_ids,
        distributed.share(range(len(prompt_ids))),
        eos_token_id=tokenizer.eos_token_id,
        pad_token_id=tokenizer.pad_token_id,
        config=replace(config.rollout, temperature=temperature),
        generator_seed=config.seed,
        progress=f"{name} answers" if config.tracker.progress else None,
    )
    own_logprobs = response_logprobs(model, distributed.share(prompt_ids), rollout.response_ids)
    response_ids = distributed.whole(rollout.response_ids, len(prompt_ids))
    blocks = held_out_blocks(data, tokenizer, model)
    return Generated(
        tokenizer=tokenizer,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        ended=distributed.whole(rollout.ended, len(prompt_ids)),
        texts=[template.decode(ids) for ids in response_ids],
        logprobs=distributed.whole(own_logprobs, len(prompt_ids)),
        text_loss=None if blocks is None else text_loss(model, blocks, token_budget=TOKEN_BUDGET),
    )


def kl_from_reference(
    path: str | None, generated: Mapping[str, Generated], config: Config
) -> dict[str, list[float] | None]:
    """Each candidate's log p(response) minus the SFT model's, nats a response; None where the tokenizers differ.

    path: the SFT model's; None, when there is none, measures no KL. The mean over prompts estimates
    KL(candidate || SFT) without bias, so a single response's value may be negative. Each model reads the prompt as its
    own chat template renders it.
    """
    from rlhf.engine import pick_device
    from rlhf.evaluation.kl import response_logprobs
    from rlhf.models import load_causal_lm

    if path is None:
        return dict.fromkeys(generated)
    reference = generated[KL_FROM]
    model: PreTrainedModel | None = None
    kl: dict[str, list[float] | None] = {}
    for name, candidate in generated.items():
        if name == KL_FROM:
            kl[name] = [0.0] * len(candidate.texts)
        elif not same_tokenizer(candidate.tokenizer, reference.tokenizer):
            kl[name] = None
        else:
            if model is None:
                model = load_causal_lm(path, config.model).to(pick_device(config.launch))  # type: ignore[arg-type]
            ours = candidate.logprobs
            own = response_logprobs(
                model, distributed.share(reference.prompt_ids), distributed.share(candidate.response_ids)
            )
            theirs = distributed.whole(own, len(ours))
            kl[name] = [a - b for a, b in zip(ours, theirs, strict=True)]
    return kl


def scored_sequences(
    generated: Generated, prompts: Sequence[Prompt], tokenizer: PreTrainedTokenizerBase, config: Config
) -> list[list[int]]:
    """Prompt, response and end token in the tokens of the reward model, whose tokenizer is given.

    The sampled tokens themselves where the candidate shares the tokenizer; its text, tokenised anew, where not.
    """
    template = ChatTemplate(tokenizer, config.data.template)
    prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
    if same_tokenizer(generated.tokenizer, tokenizer):
        return [ids + response for ids, response in zip(prompt_ids, generated.response_ids, strict=True)]
    return [
        ids + template.response_ids(text, ended=ended)
        for ids, text, ended in zip(prompt_ids, generated.texts, generated.ended, strict=True)
    ]


def same_tokenizer(one: PreTrainedTokenizerBase, other: PreTrainedTokenizerBase) -> bool:
    """Whether a list of ids means the same text, and ends the same way, in both."""
    return one is other or (one.eos_token_id == other.eos_token_id and one.get_vocab() == other.get_vocab())

"""Candidates answer the held-out prompts, one model in memory at a time, with the same random numbers for all.

What a model drew and what it finds likely is looked up in an AnswerCache first; a model is loaded when something is not
there.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlhf.config import Config
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder, context_of
from rlhf.data.records import DataSource, MultipleChoice, Prompt, Split
from rlhf.data.templates import ChatTemplate
from rlhf.evaluation.answering import few_shot
from rlhf.evaluation.answering.cache import AnswerCache, sha256
from rlhf.evaluation.answering.outputs import Output
from rlhf.runtime import distributed
from rlhf.runtime.folder import model_hash
from rlhf.self_instruct.records import cut_at

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

KL_FROM = "sft"  # the candidate whose model the others' KL is measured from
log = logging.getLogger("rlhf")


@dataclass(frozen=True)
class Generated:
    """One candidate's responses, in the order of the prompts."""

    tokenizer: PreTrainedTokenizerBase | None  # None: outputs that no model at hand has tokens for
    prompt_ids: list[list[int]]  # [] without a tokenizer
    response_ids: list[list[int]]  # the end token is the last one where `ended`
    ended: list[bool]
    texts: list[str]
    logprobs: list[float] | None  # log p(response | prompt) under the candidate itself, nats, temperature 1
    text_loss: float | None  # on held-out documents, nats a token; None where the data has none, or it is no model
    kl: float | None = None  # from the SFT model where it is known without measuring, nats a response
    about: dict[str, Any] = field(default_factory=dict)  # what report.json says of it besides

    @property
    def lengths(self) -> list[int]:
        """Tokens of each response, end token included; whitespace words without a tokenizer."""
        return [len(ids) for ids in self.response_ids] if self.tokenizer else [len(text.split()) for text in self.texts]


class Model:
    """The causal language model at `path`, loaded once something is asked that `cache` does not know."""

    def __init__(self, path: str, config: Config, cache: AnswerCache) -> None:
        self.path = path
        self.tokenizer = load_tokenizer_of(path, config)
        self.template = ChatTemplate(self.tokenizer, config.data.template)
        self._config = config
        self._cache = cache

    @cached_property
    def context(self) -> int | None:
        return context_at(self.path, self._config)

    def sample(self, prompt_ids: Sequence[Sequence[int]], doing: str, *, draw: int = 0) -> list[list[int]]:
        """A response to each prompt at compare.temperature, the end token last where one ended.

        draw: 0, 1, ... give other responses to the same prompts. Every rank draws its share, and gets all of them.
        """
        from rlhf.ppo.rollout import generate

        rollout = self._config.rollout
        sampling = replace(rollout, temperature=self._config.compare.temperature or rollout.temperature)

        def make() -> list[list[int]]:
            drawn = generate(
                self.causal_lm,
                prompt_ids,
                distributed.share(range(len(prompt_ids))),
                eos_token_id=self.tokenizer.eos_token_id,
                config=sampling,
                generator_seed=self._seed(draw),
                progress=doing if self._config.tracker.progress else None,
            )
            return distributed.whole(drawn.response_ids, len(prompt_ids))

        asked = {
            "prompts": sha256(prompt_ids),
            "end": self.tokenizer.eos_token_id,
            "temperature": sampling.temperature,
            "max_new_tokens": sampling.max_new_tokens,
            "batch_size": sampling.batch_size,  # which moves the last bits of a logit
            "seed": self._seed(draw),
        }
        return self._remembered("responses", asked, make)

    def logprobs(self, prompt_ids: Sequence[Sequence[int]], response_ids: Sequence[Sequence[int]]) -> list[float]:
        """log p(response | prompt) at temperature 1, in nats, summed over each response's tokens."""
        from rlhf.evaluation.answering.kl import response_logprobs

        def make() -> list[float]:
            own = response_logprobs(self.causal_lm, distributed.share(prompt_ids), distributed.share(response_ids))
            return distributed.whole(own, len(prompt_ids))

        return self._remembered("logprobs", {"prompts": sha256(prompt_ids), "responses": sha256(response_ids)}, make)

    def text_loss(self, data: DataSource) -> float | None:
        """On held-out documents, nats a token; None where the data has none."""
        from rlhf.evaluation.answering.kl import TOKEN_BUDGET
        from rlhf.pretraining.text_loss import held_out_blocks, text_loss

        blocks = held_out_blocks(data, self.tokenizer, self.context)
        if blocks is None:
            return None
        documents = hashlib.sha256(blocks.numpy().tobytes()).hexdigest()
        asked = {"documents": documents, "shape": list(blocks.shape)}
        return self._remembered(
            "text_loss", asked, lambda: text_loss(self.causal_lm, blocks, token_budget=TOKEN_BUDGET)
        )

    def option_logprobs(self, items: Sequence[MultipleChoice]) -> list[list[float]]:
        """log p(option | context) of each option of each item, in nats."""
        from rlhf.evaluation.answering.multiple_choice import option_logprobs

        asked = {"items": sha256([[item.context, list(item.options)] for item in items])}
        return self._remembered("options", asked, lambda: option_logprobs(self.causal_lm, self.tokenizer, items))

    def response(self, ids: Sequence[int]) -> tuple[str, bool]:
        """Its text, and whether it ended by itself."""
        return self.template.decode(ids), ids[-1] == self.tokenizer.eos_token_id

    def _seed(self, draw: int) -> int:
        if draw == 0:
            return self._config.seed
        return int(sha256([self._config.seed, draw])[:14], 16)

    def _remembered(self, what: str, asked: Mapping[str, Any], make: Any) -> Any:
        made_from = None if self._identity is None else {"what": what, **self._identity, **asked}
        return self._cache.remember(made_from, make)

    @cached_property
    def _identity(self) -> dict[str, Any] | None:
        return identity(self.path, self._config)

    @cached_property
    def causal_lm(self) -> PreTrainedModel:
        """The model itself, loaded when it is first asked for."""
        from rlhf.models.load import load_causal_lm
        from rlhf.training.engine import pick_device

        model = load_causal_lm(self.path, self._config.model)
        return model.to(pick_device(self._config.launch))  # type: ignore[arg-type]


def identity(path: str, config: Config) -> dict[str, Any] | None:
    """What makes the model at `path` give the numbers that it gives, as a cache's key.

    None for a hub id: what it stands for may change, and is known only once it is loaded.
    """
    from rlhf.models.folders import resolve_model_path

    folder = Path(resolve_model_path(path))
    if not folder.is_dir():
        return None
    model = config.model
    return {"model": model_hash(folder), "dtype": model.dtype.value, "attention": model.attn_implementation}


def load_tokenizer_of(path: str, config: Config) -> PreTrainedTokenizerBase:
    from rlhf.models.tokenizers import load_tokenizer

    return load_tokenizer(path, trust_remote_code=config.model.trust_remote_code)


def context_at(path: str, config: Config) -> int | None:
    """Tokens that the model at `path` can take at once, None without a limit; its weights are not loaded."""
    from transformers import AutoConfig

    from rlhf.models.folders import resolve_model_path

    trust = config.model.trust_remote_code
    return context_of(AutoConfig.from_pretrained(resolve_model_path(path), trust_remote_code=trust))


def usable_prompts(paths: Sequence[str], prompts: Sequence[Prompt], config: Config, bad_rows: BadRows) -> list[Prompt]:
    """The prompts that every model has room to answer, in their order; the others are bad rows."""
    usable = list(prompts)
    for path in dict.fromkeys(paths):
        template = ChatTemplate(load_tokenizer_of(path, config), config.data.template)
        encoder = Encoder(template, config.data, bad_rows, context=context_at(path, config))
        usable = [encoded.prompt for encoded in encoder.prompts(usable, room=config.rollout.max_new_tokens)]
    return usable


def answer(
    path: str, name: str, prompts: Sequence[Prompt], data: DataSource, config: Config, cache: AnswerCache
) -> Generated:
    """Sampled responses of the model at `path`, at compare.temperature, and its loss on the data's documents."""
    model = Model(path, config, cache)
    prompt_ids = [model.template.prompt_ids(prompt) for prompt in prompts]
    response_ids = model.sample(prompt_ids, f"{name} answers")
    read = [model.response(ids) for ids in response_ids]
    return Generated(
        tokenizer=model.tokenizer,
        prompt_ids=prompt_ids,
        response_ids=response_ids,
        ended=[ended for _, ended in read],
        texts=[text for text, _ in read],
        logprobs=model.logprobs(prompt_ids, response_ids),
        text_loss=model.text_loss(data),
    )


def answer_few_shot(
    path: str, name: str, count: int, prompts: Sequence[Prompt], data: DataSource, config: Config, cache: AnswerCache
) -> Generated:
    """Responses of the model at `path` after `count` of the training split's demonstrations.

    They are cut where another turn begins, which ends them too. So they are no samples of a distribution over tokens
    that the SFT model shares, and have no log-probs. `about["shots"]` is how many demonstrations there was room for.
    """
    model = Model(path, config, cache)
    shown = few_shot.choose(
        data.demonstrations(Split.train),
        count,
        model.tokenizer,
        prompts,
        context=model.context,
        room=config.rollout.max_new_tokens,
        seed=config.seed,
    )
    if len(shown.shots) < count:
        log.warning("%s reads %d demonstrations: no more are short enough", name, len(shown.shots))
    sampled = model.sample([shown.prompt_ids(prompt) for prompt in prompts], f"{name} answers")
    texts, ended = [], []
    for ids in sampled:
        raw, by_itself = model.response(ids)
        text, stopped = cut_at("\n" + raw, few_shot.STOPS)
        texts.append(text.strip())
        ended.append(by_itself or stopped)
    return Generated(
        tokenizer=model.tokenizer,
        prompt_ids=[model.template.prompt_ids(prompt) for prompt in prompts],
        response_ids=[model.template.response_ids(text, ended=end) for text, end in zip(texts, ended, strict=True)],
        ended=ended,
        texts=texts,
        logprobs=None,
        text_loss=None,
        about={"shots": len(shown.shots)},
    )


def from_file(
    outputs: Mapping[str, Output], prompts: Sequence[Prompt], counted_by: tuple[str, str] | None, config: Config
) -> Generated:
    """Answers that a file holds, by the prompt's id.

    counted_by: role and path of the model in whose tokens they are given; None: in no model's, and their length is in
    words.
    """
    chosen = [outputs[prompt.id] for prompt in prompts]
    template = None
    if counted_by is not None:
        template = ChatTemplate(load_tokenizer_of(counted_by[1], config), config.data.template)
    return Generated(
        tokenizer=template.tokenizer if template else None,
        prompt_ids=[template.prompt_ids(prompt) for prompt in prompts] if template else [],
        response_ids=[template.response_ids(o.text, ended=o.ended) for o in chosen] if template else [],
        ended=[output.ended for output in chosen],
        texts=[output.text for output in chosen],
        logprobs=None,
        text_loss=None,
        about={"length_in": f"tokens of {counted_by[0]}" if counted_by else "words"},
    )


def kl_from_reference(
    path: str | None, generated: Mapping[str, Generated], config: Config, cache: AnswerCache
) -> dict[str, list[float] | None]:
    """Each candidate's log p(response) minus the SFT model's, nats a response; None where it is not defined.

    path: the SFT model's; None, when there is none, measures no KL. The mean over prompts estimates
    KL(candidate || SFT) without bias, so a single response's value may be negative. Each model reads the prompt as its
    own chat template renders it. Not defined: where the tokenizers differ, and for answers that no model's
    distribution over the SFT model's tokens gave.
    """
    if path is None:
        return dict.fromkeys(generated)
    reference = generated[KL_FROM]
    assert reference.tokenizer is not None, "it is a model"
    model = Model(path, config, cache)
    kl: dict[str, list[float] | None] = {}
    for name, candidate in generated.items():
        if name == KL_FROM:
            kl[name] = [0.0] * len(candidate.texts)
        elif candidate.kl is not None:
            kl[name] = [candidate.kl] * len(candidate.texts)
        elif candidate.logprobs is None or not same_tokenizer(candidate.tokenizer, reference.tokenizer):
            kl[name] = None
        else:
            theirs = model.logprobs(reference.prompt_ids, candidate.response_ids)
            kl[name] = [ours - other for ours, other in zip(candidate.logprobs, theirs, strict=True)]
    return kl


def scored_sequences(generated: Generated, prompts: Sequence[Prompt], path: str, config: Config) -> list[list[int]]:
    """Prompt, response and end token in the tokens of the reward model at `path`, cut to its context.

    The sampled tokens themselves where the candidate shares the tokenizer; its text, tokenised anew, where not.
    """
    tokenizer = load_tokenizer_of(path, config)
    template = ChatTemplate(tokenizer, config.data.template)
    prompt_ids = [template.prompt_ids(prompt) for prompt in prompts]
    if same_tokenizer(generated.tokenizer, tokenizer):
        responses = generated.response_ids
    else:
        given = zip(generated.texts, generated.ended, strict=True)
        responses = [template.response_ids(text, ended=ended) for text, ended in given]
    context = context_at(path, config)
    whole = [ids + response for ids, response in zip(prompt_ids, responses, strict=True)]
    too_long = sum(context is not None and len(ids) > context for ids in whole)
    if too_long:
        log.warning(
            "%d answers are scored as far as the reward model's context of %d tokens reaches", too_long, context
        )
    return [ids[:context] for ids in whole]


def same_tokenizer(one: PreTrainedTokenizerBase | None, other: PreTrainedTokenizerBase | None) -> bool:
    """Whether a list of ids means the same text, and ends the same way, in both."""
    if one is None or other is None:
        return False
    return one is other or (one.eos_token_id == other.eos_token_id and one.get_vocab() == other.get_vocab())

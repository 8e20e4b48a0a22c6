"""A writer in this process: a causal language model that goes on with plain text."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING

from rlhf.config import RolloutConfig
from rlhf.data.encoding import context_of
from rlhf.models.load import load_causal_lm
from rlhf.models.tokenizers import load_tokenizer
from rlhf.ppo.rollout import generate
from rlhf.self_instruct.records import Completion, cut_at
from rlhf.training.engine import pick_device

if TYPE_CHECKING:
    from rlhf.config import Config

_TOKENS_AT_A_TIME = 96  # then texts that hold a stop string are done: what is drawn past one is lost


class LocalModel:
    """The model at `path`; `rollout.batch_size` completions are drawn side by side, the same ones for the same seed."""

    continues = True

    def __init__(self, path: str, config: Config) -> None:
        trust = config.model.trust_remote_code
        self._tokenizer = load_tokenizer(path, trust_remote_code=trust)
        self._model = load_causal_lm(path, config.model).to(pick_device(config.launch))  # type: ignore[arg-type]
        self._context = context_of(self._model.config)
        self._sampling = RolloutConfig(batch_size=config.rollout.batch_size)
        self._bars = config.tracker.progress

    def fits(self, prompt: str, max_tokens: int) -> bool:
        return self._context is None or len(self._ids(prompt)) + max_tokens <= self._context

    def complete(
        self, prompts: list[str], *, max_tokens: int, temperature: float, stop: list[str], seed: int, doing: str
    ) -> list[Completion]:
        prompt_ids = [self._ids(prompt) for prompt in prompts]
        drawn: list[list[int]] = [[] for _ in prompts]
        done: list[Completion | None] = [None] * len(prompts)
        for start in range(0, max_tokens, _TOKENS_AT_A_TIME):
            going = [place for place, completion in enumerate(done) if completion is None]
            if not going:
                break
            tokens = min(_TOKENS_AT_A_TIME, max_tokens - start)
            rollout = generate(
                self._model,
                [given + so_far for given, so_far in zip(prompt_ids, drawn, strict=True)],
                going,
                eos_token_id=self._tokenizer.eos_token_id,
                config=dataclasses.replace(self._sampling, temperature=temperature, max_new_tokens=tokens),
                generator_seed=seed + start,
                progress=doing if self._bars else None,
            )
            for place, ids, ended in zip(going, rollout.response_ids, rollout.ended, strict=True):
                drawn[place] += ids
                text, stopped = cut_at(self._text(drawn[place]), stop)
                if stopped or ended or start + tokens == max_tokens:
                    done[place] = Completion(text, stopped or ended)
        return [completion for completion in done if completion is not None]

    def _ids(self, text: str) -> list[int]:
        return list(self._tokenizer(text)["input_ids"])

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True))

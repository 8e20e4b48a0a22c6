"""Records to token ids: the lengths a model can take are checked here, where its tokenizer is known."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rlhf.config import DataConfig
from rlhf.data.bad_rows import BadRows
from rlhf.data.records import Demonstration, Prompt, Ranking
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError


@dataclass(frozen=True)
class EncodedPrompt:
    prompt: Prompt
    ids: list[int]


@dataclass(frozen=True)
class EncodedDemonstration:
    prompt: Prompt
    prompt_ids: list[int]
    response_ids: list[int]  # with the end token, unless the response was cut


@dataclass(frozen=True)
class EncodedRanking:
    ranking: Ranking
    sequences: list[list[int]]  # prompt + completion + end token, one a completion


def context_of(model_config: object) -> int | None:
    """Tokens that a model can take at once; None when its config does not say."""
    context = getattr(model_config, "max_position_embeddings", None)
    return context if isinstance(context, int) else None


class Encoder:
    """One tokenizer's view of the data. Prompts over the limits are bad rows; responses are cut to what fits.

    context: the model's, in tokens; None knows no limit but the config's.
    """

    def __init__(
        self, template: ChatTemplate, config: DataConfig, bad_rows: BadRows, *, context: int | None = None
    ) -> None:
        self.template = template
        self.config = config
        self.bad_rows = bad_rows
        self.context = context

    def prompts(self, prompts: Sequence[Prompt], *, room: int = 1) -> list[EncodedPrompt]:
        """Prompts that leave `room` tokens of the context for a response."""
        encoded = [EncodedPrompt(prompt, ids) for prompt in prompts if (ids := self._prompt_ids(prompt, room))]
        self._require(encoded, prompts)
        return encoded

    def demonstrations(self, demonstrations: Sequence[Demonstration]) -> list[EncodedDemonstration]:
        encoded = []
        for demonstration in demonstrations:
            prompt_ids = self._prompt_ids(demonstration.prompt, 1)
            if prompt_ids is not None:
                response_ids = self._response_ids(demonstration.response, prompt_ids)
                encoded.append(EncodedDemonstration(demonstration.prompt, prompt_ids, response_ids))
        self._require(encoded, demonstrations)
        return encoded

    def rankings(self, rankings: Sequence[Ranking]) -> list[EncodedRanking]:
        encoded = []
        for ranking in rankings:
            prompt_ids = self._prompt_ids(ranking.prompt, 1)
            if prompt_ids is not None:
                sequences = [prompt_ids + self._response_ids(text, prompt_ids) for text in ranking.completions]
                encoded.append(EncodedRanking(ranking, sequences))
        self._require(encoded, rankings)
        return encoded

    def _prompt_ids(self, prompt: Prompt, room: int) -> list[int] | None:
        where = f"the prompt {prompt.id}"
        try:
            ids = self.template.prompt_ids(prompt)
        except UserError as error:
            self.bad_rows.add(where, str(error).rstrip("."))
            return None
        limit, key = self.config.max_prompt_tokens, "raise data.max_prompt_tokens"
        if self.context is not None and self.context - room < limit:
            limit, key = self.context - room, f"use a model with a longer context than {self.context} tokens"
        if len(ids) > limit:
            self.bad_rows.add(where, f"it has {len(ids)} tokens, and {limit} are allowed", key)
            return None
        return ids

    def _response_ids(self, text: str, prompt_ids: Sequence[int]) -> list[int]:
        limit = self.config.max_response_tokens
        if self.context is not None:
            limit = min(limit, self.context - len(prompt_ids))
        ids = self.template.response_ids(text)
        return ids[:limit]

    def _require(self, encoded: Sequence[object], given: Sequence[object]) -> None:
        if not encoded:
            raise UserError(
                f"None of {len(given)} prompts is short enough; raise data.max_prompt_tokens above "
                f"{self.config.max_prompt_tokens}, or use a model with a longer context."
            )

"""How often a model finds the right option the likeliest: the accuracy of lm-eval's multiple-choice tasks (`acc`).

What fine-tuning cost of it is the alignment tax of arXiv:2203.02155, section 4.2 and appendix E.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from rlhf.data.encoding import context_of
from rlhf.data.records import MultipleChoice
from rlhf.errors import UserError
from rlhf.evaluation.answering.kl import TOKEN_BUDGET, response_logprobs
from rlhf.runtime import distributed

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


def option_logprobs(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    items: Sequence[MultipleChoice],
    *,
    token_budget: int = TOKEN_BUDGET,
) -> list[list[float]]:
    """log p(option | context) of each option of each item, in nats, summed over the option's tokens.

    Each rank reads its share of the items, and gets all of them. Raises UserError where one is longer than the model's
    context.
    """
    own = distributed.share(items)
    pairs = [encode(tokenizer, item.context, option) for item in own for option in item.options]
    context = context_of(model.config)
    longest = max((len(c) + len(o) for c, o in pairs), default=0)
    if context is not None and longest > context:
        raise UserError(
            f"compare.benchmark has an item of {longest} tokens and {model.name_or_path} takes {context}; shorten its "
            "context, or leave it out."
        )
    sums = iter(response_logprobs(model, [c for c, _ in pairs], [o for _, o in pairs], token_budget=token_budget))
    return distributed.whole([[next(sums) for _ in item.options] for item in own], len(items))


def encode(tokenizer: PreTrainedTokenizerBase, context: str, option: str) -> tuple[list[int], list[int]]:
    """Tokens of the context and of the option, as lm-eval splits them.

    Context and option are tokenised together, and the option's tokens are those behind as many as the context has
    alone. Spaces that end the context go to the option, whose first word they are part of. Special tokens are those
    that the tokenizer adds by itself. Raises UserError where the option runs into the context's last word and leaves
    no token of its own: lm-eval would call it certain.
    """
    context_ids = tokenizer.encode(context.rstrip())
    option_ids = tokenizer.encode(context + option)[len(context_ids) :]
    if not option_ids:
        raise UserError(
            f"compare.benchmark has an option {option!r} that only lengthens the last word of its context; begin the "
            "option with a space, or with that word."
        )
    return context_ids, option_ids


def chosen(logprobs: Sequence[Sequence[float]]) -> list[int]:
    """The place of each item's likeliest option; the first of equal ones."""
    return [max(range(len(options)), key=options.__getitem__) for options in logprobs]

"""Comparisons of two summaries of a post or an article (Stiennon et al. 2020, arXiv:2009.01325).

Source: openai/summarize-from-feedback, JSON lines on Azure (dataset/comparisons/*.json), and under the same name with
underscores on the hub, subset `comparisons`: 92,858 rows to train on and 86,086 to validate. Modified MIT licence, data
included. A row: `info` {id, post, title, subreddit} of a Reddit post, or {id, article, title, site} of a CNN or
Daily Mail article; two `summaries` {text, policy, note}; `choice`, the number of the better one; `worker`, the
labeler; `batch`; `split`; `extra` {confidence}.

The prompt is the query the paper's models saw, but whole: the paper cut posts to 512 tokens, and here
data.max_prompt_tokens decides. `split` is kept: train trains, valid1 (the paper chose models by it) and valid2 (its
final figures) evaluate. The task is the subreddit or the site. The better summary serves as a demonstration; the
paper fine-tuned on TL;DRs by the posts' authors, another data set, which are among the summaries as policy `ref`.

The data set's other half, `axis`, rates single summaries by several labelers, to evaluate models. Two labelers'
scores of two summaries are not a comparison, so its rows are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from rlhf.data.readers.comparisons import best, choice, ranks_of_choice
from rlhf.data.readers.fields import optional_text, ranking, text, user_prompt
from rlhf.data.records import BadRowError, Demonstration, Prompt, Ranking, Split

_SPLITS = {"train": Split.train, "valid1": Split.evaluation, "valid2": Split.evaluation}


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    if "summary" in row and "summaries" not in row:
        raise BadRowError(
            "it rates a single summary, which is no comparison",
            "read the comparisons instead (on the hub: data.subset=comparisons)",
        )
    if not isinstance(row.get("info"), Mapping):
        raise BadRowError("`info` is not {id, post, title, subreddit}")
    prompt = replace(_prompt(row["info"]), split=_split(row))
    ranked = ranking(prompt, _summaries(row), ranks_of_choice(choice(row, "choice")))
    return [*best(ranked), ranked]


def _prompt(info: Mapping[str, Any]) -> Prompt:
    """In the hub's rows a post has a null `article`, and an article a null `post`."""
    if optional_text(info, "article"):
        task = optional_text(info, "site")
        query = f"Article:\n{text(info, 'article')}\n\nTL;DR:"
    else:
        task = text(info, "subreddit")
        query = f"SUBREDDIT: r/{task}\n\nTITLE: {optional_text(info, 'title')}\n\nPOST: {text(info, 'post')}\n\nTL;DR:"
    number = optional_text(info, "id")
    return replace(user_prompt(query, task=task), id=f"summarize_from_feedback:{number}" if number else "")


def _split(row: Mapping[str, Any]) -> Split | None:
    named = optional_text(row, "split")
    if named and named not in _SPLITS:
        raise BadRowError(f"`split` is {named[:40]!r}, none of {', '.join(_SPLITS)}")
    return _SPLITS.get(named)


def _summaries(row: Mapping[str, Any]) -> list[str]:
    summaries = row.get("summaries")
    if not isinstance(summaries, Sequence) or isinstance(summaries, str) or len(summaries) != 2:
        raise BadRowError("`summaries` is not a list of 2")
    for index, summary in enumerate(summaries):
        if not isinstance(summary, Mapping):
            raise BadRowError(f"`summaries[{index}]` is not {{text, policy, note}}")
    return [text(summary, "text") for summary in summaries]

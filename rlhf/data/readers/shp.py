"""Stanford Human Preferences: two comments under a Reddit post, by votes (Ethayarajh et al. 2022, ICML).

Source: stanfordnlp/SHP on the hub, a folder a subreddit (18), {train,validation,test}.json of JSON lines: 385,563
pairs; stanfordnlp/SHP-2 has 4.8 million in the same columns, StackExchange among them. Scraped under Reddit's API
terms; the texts belong to those who wrote them. A row: `history` (the post's title and body), `human_ref_A`,
`human_ref_B` (the comments), `labels` (1: A is preferred, 0: B), `score_A`, `score_B` (votes), `domain` (the
subreddit, an underscore, and the split), `post_id`, times and ratios.

`labels` alone ranks, and scores give no margins: what is seen longer gets more votes, and those of two posts are not
of one scale; a pair is in the data where the comment that has more was not the earlier. A post has many pairs; they
stay pairs. The task is the subreddit; no post is in two splits, which files are named by. The authors trained
preference models (SteamSHP) and no policy; others fine-tune on the preferred comments, which are demonstrations here
too.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rlhf.data.readers.comparisons import best, choice, ranks_of_choice
from rlhf.data.readers.fields import optional_text, ranking, text, user_prompt
from rlhf.data.records import Demonstration, Ranking

_SPLITS = ("_train", "_validation", "_test")


def read(row: Mapping[str, Any]) -> list[Demonstration | Ranking]:
    prompt = user_prompt(text(row, "history"), task=_subreddit(optional_text(row, "domain")))
    ranks = ranks_of_choice(1 - choice(row, "labels"))
    ranked = ranking(prompt, (text(row, "human_ref_A"), text(row, "human_ref_B")), ranks)
    return [*best(ranked), ranked]


def _subreddit(domain: str) -> str:
    split = next((split for split in _SPLITS if domain.endswith(split)), "")
    return domain.removesuffix(split)

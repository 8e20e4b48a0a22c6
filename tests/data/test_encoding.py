from __future__ import annotations

import json
from pathlib import Path

import pytest

from rlhf.config import DataConfig, OnBadRow
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import Encoder
from rlhf.data.records import Demonstration, Ranking
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from tests.fakes import prompt
from tests.tiny import build_tokenizer

TEMPLATE = ChatTemplate(build_tokenizer())
LONG, SHORT = prompt("word " * 100, 7), prompt("word", 8)


def encoder(bad_rows: BadRows, *, context: int | None = None, **settings: int) -> Encoder:
    return Encoder(TEMPLATE, DataConfig(**settings), bad_rows, context=context)


def test_prompt_over_the_limit_is_refused_with_its_row_and_key() -> None:
    with pytest.raises(UserError, match=r"test:7.*tokens, and 32 are allowed; raise data\.max_prompt_tokens"):
        encoder(BadRows(OnBadRow.refuse, None), max_prompt_tokens=32).prompts([SHORT, LONG])


def test_prompt_longer_than_the_context_is_refused() -> None:
    with pytest.raises(UserError, match="longer context than 64 tokens"):
        encoder(BadRows(OnBadRow.refuse, None), context=64).prompts([LONG])


def test_skipped_prompts_are_counted_and_listed_once_over_resumes(tmp_path: Path) -> None:
    path = tmp_path / "bad_rows.jsonl"
    for _ in range(2):
        bad_rows = BadRows(OnBadRow.skip, path, append=True)
        kept = encoder(bad_rows, max_prompt_tokens=32).demonstrations(
            [Demonstration(SHORT, "yes"), Demonstration(LONG, "no")]
        )
        assert [row.prompt for row in kept] == [SHORT]
        assert bad_rows.count == 1
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["where"] for line in lines] == ["the prompt test:7"]


def test_nothing_short_enough_is_refused_even_when_skipping() -> None:
    with pytest.raises(UserError, match="None of 1 prompts is short enough"):
        encoder(BadRows(OnBadRow.skip, None), max_prompt_tokens=32).prompts([LONG])


def test_long_response_is_cut_without_an_end_token() -> None:
    end = TEMPLATE.tokenizer.eos_token_id
    row = encoder(BadRows(OnBadRow.refuse, None), max_response_tokens=5).demonstrations(
        [Demonstration(SHORT, "yes " * 20)]
    )[0]
    assert len(row.response_ids) == 5
    assert end not in row.response_ids
    context = len(row.prompt_ids) + 3
    row = encoder(BadRows(OnBadRow.refuse, None), context=context).demonstrations([Demonstration(SHORT, "yes " * 20)])[
        0
    ]
    assert len(row.response_ids) == 3


def test_ranking_sequences_are_prompt_completion_end() -> None:
    ranking = Ranking(SHORT, ("yes", "no no"), (0, 1))
    encoded = encoder(BadRows(OnBadRow.refuse, None)).rankings([ranking])[0]
    expected = [TEMPLATE.prompt_ids(SHORT) + TEMPLATE.response_ids(text) for text in ranking.completions]
    assert encoded.sequences == expected

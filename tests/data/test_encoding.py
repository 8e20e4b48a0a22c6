from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName, LongPrompts, LossOn, OnBadRow, Template
from rlhf.data import encoding as encoding_module
from rlhf.data.bad_rows import BadRows
from rlhf.data.encoding import IGNORED, Encoder
from rlhf.data.records import Demonstration, Message, Prompt, Ranking, Role, Split
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from tests.support.fakes import prompt
from tests.support.tiny import build_tokenizer

TEMPLATE = ChatTemplate(build_tokenizer())
LONG, SHORT = prompt("word " * 100, 7), prompt("word", 8)


def encoder(bad_rows: BadRows, *, context: int | None = None, **settings: Any) -> Encoder:
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


TALK = Prompt(
    "t:1",
    (
        Message(Role.system, "be kind"),
        Message(Role.user, "one " * 20),
        Message(Role.assistant, "yes"),
        Message(Role.user, "two"),
    ),
)


def test_long_prompts_lose_their_oldest_turns_by_choice_and_are_counted() -> None:
    chosen = {"max_prompt_tokens": 40, "long_prompts": LongPrompts.truncate}
    encoding = encoder(BadRows(OnBadRow.refuse, None), **chosen)
    rows = encoding.demonstrations([Demonstration(TALK, "no"), Demonstration(SHORT, "no")])
    assert [message.content for message in rows[0].prompt.messages] == ["be kind", "two"]
    assert rows[0].prompt_ids == TEMPLATE.prompt_ids(rows[0].prompt)
    assert len(rows[0].prompt_ids) <= 40
    assert rows[1].prompt == SHORT
    assert encoding.truncated_prompts == 1
    with pytest.raises(UserError, match=r"its last turn alone is too long"):
        encoder(BadRows(OnBadRow.refuse, None), **chosen).prompts([LONG])
    with pytest.raises(UserError, match=r"drop the oldest turns with data\.long_prompts=truncate"):
        encoder(BadRows(OnBadRow.refuse, None), max_prompt_tokens=40).prompts([TALK])


def test_cut_responses_are_counted() -> None:
    encoding = encoder(BadRows(OnBadRow.refuse, None), max_response_tokens=5)
    encoding.demonstrations([Demonstration(SHORT, "yes " * 20), Demonstration(SHORT, "yes")])
    encoding.rankings([Ranking(SHORT, ("yes " * 20, "no " * 20, "yes"), (0, 1, 2))])
    assert encoding.cut_responses == 3


def test_loss_is_on_the_last_turn_or_on_all_of_the_assistants() -> None:
    demonstration = Demonstration(TALK, "no")
    last, every = (
        encoder(BadRows(OnBadRow.refuse, None)).demonstrations([demonstration], loss_on).table[0]["labels"]
        for loss_on in (LossOn.last, LossOn.all)
    )
    assert [token for token in last if token != IGNORED] == TEMPLATE.response_ids("no")
    assert [token for token in every if token != IGNORED] == TEMPLATE.response_ids("yes") + TEMPLATE.response_ids("no")


def source(tmp_path: Path, count: int, **settings: Any) -> Any:
    path = tmp_path / "r.jsonl"
    rows = [
        {"prompt": f"word {i}" + " word" * (60 if i % 10 == 3 else i % 7), "chosen": "yes", "rejected": "no"}
        for i in range(count)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = DataConfig(source=DataSourceName.jsonl, path=str(path), cache=str(tmp_path / "cache"), **settings)
    return load_source(config, 0), config


def test_many_records_are_tokenized_by_several_processes_as_few_are_by_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    data, config = source(tmp_path, 60, max_prompt_tokens=32, on_bad_row=OnBadRow.skip, workers=2)
    kinds = [
        ("demonstrations", data.demonstrations(Split.train)),
        ("rankings", data.rankings(Split.train, lambda *_: [])),
        ("prompts", data.prompts(Split.train)),
    ]
    found: dict[int, list[Any]] = {}
    for parallel_from in (10**9, 10):
        monkeypatch.setattr(encoding_module, "PARALLEL_FROM", parallel_from)
        bad_rows = BadRows(OnBadRow.skip, tmp_path / f"{parallel_from}.jsonl")
        encoder = Encoder(TEMPLATE, config, bad_rows)
        found[parallel_from] = [list(getattr(encoder, kind)(records)) for kind, records in kinds] + [bad_rows.count]
    assert found[10] == found[10**9]
    long = sum("word" * 10 in d.prompt.messages[0].content.replace(" ", "") for d in data.demonstrations(Split.train))
    assert found[10][-1] == 3 * long > 0  # once a kind
    assert tokenized_folders(tmp_path) == 3


def tokenized_folders(tmp_path: Path) -> int:
    return len(list((tmp_path / "cache" / "tokens").glob("[!.]*")))


def test_what_was_tokenized_is_found_again_until_limits_or_layout_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoding_module, "PARALLEL_FROM", 10)
    data, config = source(tmp_path, 30, workers=1)

    def tokenized(template: ChatTemplate, config: DataConfig) -> bool:
        before = tokenized_folders(tmp_path)
        Encoder(template, config, BadRows(OnBadRow.skip, None)).demonstrations(data.demonstrations(Split.train))
        return tokenized_folders(tmp_path) > before

    assert tokenized(TEMPLATE, config)
    assert not tokenized(ChatTemplate(build_tokenizer()), config)
    assert tokenized(TEMPLATE, replace(config, max_response_tokens=3))
    assert tokenized(ChatTemplate(build_tokenizer(), Template.chatml), config)
    assert not tokenized(TEMPLATE, replace(config, workers=2))
    first = Encoder(TEMPLATE, config, BadRows(OnBadRow.skip, None)).demonstrations(data.demonstrations(Split.train))
    data, config = source(tmp_path, 40, workers=1)  # other records, all else the same
    again = Encoder(TEMPLATE, config, BadRows(OnBadRow.skip, None)).demonstrations(data.demonstrations(Split.train))
    assert len(again) == len(data.demonstrations(Split.train)) > len(first)


def test_rankings_whose_completions_are_the_same_after_the_cut_are_left_out_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Their loss is log 2 for ever, whatever is learned."""
    long = "yes " * 20
    alike = Ranking(SHORT, (f"{long}one", f"{long}two"), (0, 1))
    apart = Ranking(SHORT, (f"{long}one", f"{long}two", "no"), (0, 1, 2))
    tied = Ranking(SHORT, ("yes", "no"), (0, 0))
    encoding = encoder(BadRows(OnBadRow.refuse, None), max_response_tokens=5)
    with caplog.at_level(logging.WARNING, logger="rlhf"):
        kept = encoding.rankings([alike, apart, tied])
    assert [row.ranking for row in kept] == [apart, tied]
    assert encoding.alike_rankings == 1
    assert "1 of 3 rankings are left out" in caplog.text
    with pytest.raises(UserError, match=r"Every ranking.* data\.max_response_tokens=5.*raise it"):
        encoder(BadRows(OnBadRow.refuse, None), max_response_tokens=5).rankings([alike])

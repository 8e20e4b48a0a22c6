from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import Config, DataConfig, DataSourceName, LossOn, OnBadRow, RunConfig, SFTConfig, TrackerConfig
from rlhf.data.templates import ChatTemplate
from rlhf.errors import UserError
from rlhf.inspection.measure import Inspection, Span, inspect, spans_of
from rlhf.inspection.page import page
from rlhf.inspection.text import rendered, text
from stages import data as stage
from tests.support.tiny import build_tokenizer, save_tiny_model

TALK = [
    {"role": "user", "content": "what is the sky?"},
    {"role": "assistant", "content": "blue"},
    {"role": "user", "content": "and the grass?"},
    {"role": "assistant", "content": "green"},
]


def looked_at(tmp_path: Path, rows: list[Any], *, loss_on: LossOn = LossOn.last, **settings: Any) -> Inspection:
    path = tmp_path / "r.jsonl"
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    data = DataConfig(source=DataSourceName.jsonl, path=str(path), on_bad_row=OnBadRow.skip, **settings)
    config = Config(data=data, sft=SFTConfig(loss_on=loss_on))
    source = load_source(data, 0, tmp_path / "bad.jsonl")
    return inspect(config, source, ChatTemplate(build_tokenizer()), tmp_path / "bad.jsonl")


def rows(count: int) -> list[Any]:
    return [{"prompt": f"word {i} " + "more " * (i % 9), "response": "yes " * (1 + i % 5)} for i in range(count)]


def test_rows_records_refusals_and_lengths_are_counted(tmp_path: Path) -> None:
    found = looked_at(
        tmp_path, [*rows(60), "{broken", {"prompt": "a"}, {"prompt": "b", "response": ""}, {"q": 1}, {"q": 2}]
    )
    assert (found.read["rows_read"], found.read["rows_refused"]) == (65, 4)
    assert sum(found.records["demonstrations"].values()) == 60
    assert sum(found.records["prompts"].values()) == 61
    assert sum(refused.rows for refused in found.refused) == 4
    assert found.refused[0].rows == 2  # alike problems are one line, the most frequent first
    template = ChatTemplate(build_tokenizer())
    lengths = {each.name: each for each in found.lengths}
    assert max(lengths["response"].tokens) == len(template.response_ids("yes " * 5))
    assert len(lengths["prompt"].tokens) == 60
    assert [len(e.spans) for e in found.examples] == [2, 2, 2]


def test_duplicates_and_prompts_held_out_and_trained_on_are_found(tmp_path: Path) -> None:
    long = "one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
    given = [{"prompt": f"{i} {long} {i}", "response": f"r{i}"} for i in range(40)]
    found = looked_at(tmp_path, [*given, given[0], given[1]], evaluation_fraction=0.3)
    assert found.duplicates[0] == 2
    train = found.records["demonstrations"]["train"]
    assert found.leaked == train  # all share the long run with some held-out prompt


def test_what_is_learned_is_marked_to_the_end_token(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [{"messages": TALK}])
    learned = [span.text for span in found.examples[0].spans if span.learned]
    assert learned == [" green<|endoftext|>"]
    found = looked_at(tmp_path, [{"messages": TALK}], loss_on=LossOn.all)
    learned = [span.text for span in found.examples[0].spans if span.learned]
    assert learned == [" blue<|endoftext|>", " green<|endoftext|>"]
    assert "".join(span.text for span in found.examples[0].spans).count("what is the sky?") == 1


def test_limits_say_what_they_do(tmp_path: Path) -> None:
    found = looked_at(tmp_path, rows(30), max_prompt_tokens=10, max_response_tokens=3)
    assert re.match(r"\d+ prompts \(.* %\) are over data\.max_prompt_tokens=10: bad rows", found.limits[0])
    assert re.match(r"\d+ responses \(.* %\) are over data\.max_response_tokens=3: cut without", found.limits[1])


def test_texts_and_rankings_have_examples_too(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [{"text": f"words {i}"} for i in range(30)])
    assert found.examples[0].spans[0].learned
    found = looked_at(tmp_path, [{"prompt": f"p{i}", "completions": ["a", "b"], "scores": [1, 2]} for i in range(30)])
    shown = "".join(span.text for span in found.examples[0].spans)
    assert shown.index("[rank 0]  b") < shown.index("[rank 1]  a")


def test_spans_put_together_are_the_text() -> None:
    tokenizer = build_tokenizer()
    ids = tokenizer("the sky is blue").input_ids
    spans = spans_of(tokenizer, ids, [False] * 3 + [True] * (len(ids) - 3))
    assert [span.learned for span in spans] == [False, True]
    assert "".join(span.text for span in spans) == "the sky is blue"


def test_the_terminal_gets_brackets_or_colour_and_no_control_characters() -> None:
    spans = [Span("read\x1b[2J", False), Span("learned\nmore", True)]
    plain = rendered(spans, colour=False)
    assert plain == "  | read\\x1b[2J⟦learned\n  | more⟧"
    coloured = rendered(spans, colour=True)
    assert "\x1b[2J" not in coloured
    assert coloured.count("\x1b[32m") == 2  # on each line, so that the margin is not coloured


def test_the_page_escapes_what_it_shows(tmp_path: Path) -> None:
    found = looked_at(tmp_path, [{"prompt": f"<script>{i}", "response": "<b>bold"} for i in range(30)])
    html = page(found)
    assert "<script>" not in html
    assert "<mark> &lt;b&gt;bold" in html
    assert "<svg" in html
    assert not re.search(r"(src|href)=.?https?:", html)  # nothing is fetched


def test_the_stage_prints_the_page_in_words_and_writes_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in [*rows(40), ["no object"]]))
    config = Config(
        data=DataConfig(source=DataSourceName.jsonl, path=str(path)),
        run=RunConfig(name="mine", root=str(tmp_path / "runs")),
        tracker=TrackerConfig(progress=False),
    )
    config.model.path = save_tiny_model(tmp_path / "base", "llama")
    stage.run(config)  # though data.on_bad_row is refuse: here one wants to see all of them
    printed = capsys.readouterr().out
    assert "41 read, 40 used, 1 refused" in printed
    assert "example 3" in printed
    folder = tmp_path / "runs" / "mine" / "data"
    assert json.loads((folder / "report.json").read_text())["read"]["rows_read"] == 41
    assert "40 records" in re.sub(r"<[^>]+>", "", (folder / "report.html").read_text())
    assert len((folder / "bad_rows.jsonl").read_text().splitlines()) == 1
    path.write_text('{"text": "a"}\n')
    stage.run(config)
    assert not (folder / "bad_rows.jsonl").exists()
    path.write_text("")
    with pytest.raises(UserError, match="holds no rows"):
        stage.run(config)
    assert text(Inspection("jsonl", None, "plain"), colour=False) == "data=jsonl"

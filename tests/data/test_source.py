from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.chain.source import load_source
from rlhf.config import DataConfig, DataSourceName, OnBadRow, QualityConfig
from rlhf.data.records import Role, Split
from rlhf.errors import UserError

SHARED = Path("/work/shared/data")
HARMLESS = SHARED / "hh_harmless_base_test.jsonl.gz"
SEED_TASKS = SHARED / "self_instruct" / "seed_tasks.jsonl"
needs_shared = pytest.mark.skipif(not HARMLESS.exists(), reason="the real files are not on this machine")


def no_sampler(*args: Any) -> list[list[str]]:
    raise AssertionError("files hold their own rankings")


def write(path: Path, rows: list[Any]) -> Path:
    text = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows)
    path.write_bytes(gzip.compress(text.encode()) if path.suffix == ".gz" else text.encode())
    return path


def load(source: str, path: Path, tmp_path: Path | None = None, **settings: Any) -> Any:
    config = DataConfig(source=DataSourceName(source), path=str(path), **{"evaluation_fraction": 0.5, **settings})
    return load_source(config, 0, tmp_path / "bad_rows.jsonl" if tmp_path else None)


def both(source: Any, kind: str) -> list[Any]:
    arguments = (no_sampler,) if kind == "rankings" else ()
    return [record for split in Split for record in getattr(source, kind)(split, *arguments)]


def transcript(*turns: str) -> str:
    return "".join(f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {turn}" for i, turn in enumerate(turns))


HH = [
    {
        "chosen": transcript("hello", "hi", f"why {i}?", "because "),
        "rejected": transcript("hello", "hi", f"why {i}?", "no"),
    }
    for i in range(20)
]


@pytest.mark.parametrize("name", ["a.jsonl", "a.jsonl.gz"])
def test_hh_rows_become_conversations_pairs_and_demonstrations(tmp_path: Path, name: str) -> None:
    source = load("hh_rlhf", write(tmp_path / name, HH))
    ranking = next(r for r in both(source, "rankings") if r.prompt.id.endswith(":1"))
    assert dict(zip(ranking.completions, ranking.ranks, strict=True)) == {"because": 0, "no": 1}
    assert [(m.role, m.content) for m in ranking.prompt.messages] == [
        (Role.user, "hello"),
        (Role.assistant, "hi"),
        (Role.user, "why 0?"),
    ]
    assert ranking.prompt.id == f"hh_rlhf:{name}:1"
    assert {d.response for d in both(source, "demonstrations")} == {"because"}
    assert len(both(source, "prompts")) == 20


@pytest.mark.parametrize(
    ("row", "problem"),
    [
        ({"chosen": transcript("a", "b")}, "no text under `rejected`"),
        ({"chosen": transcript("a", " "), "rejected": transcript("a", "c")}, "`chosen` ends with an empty response"),
        ({"chosen": transcript("a", "b"), "rejected": transcript("z", "c")}, "answer different prompts"),
        ({"chosen": transcript("a", "b"), "rejected": transcript("a", "b")}, "are the same"),
        ({"chosen": transcript("a"), "rejected": transcript("a")}, "does not end with an Assistant turn"),
        ({"chosen": "no turns", "rejected": "none"}, "does not end with an Assistant turn"),
        ("[1, 2]", "not a JSON object"),
        ("{broken", "not JSON"),
    ],
)
def test_odd_hh_row_is_refused_with_file_row_and_key_or_skipped_and_listed(
    tmp_path: Path, row: Any, problem: str
) -> None:
    path = write(tmp_path / "hh.jsonl", [*HH, row])
    with pytest.raises(UserError) as refused:
        load("hh_rlhf", path)
    assert str(refused.value).startswith("hh.jsonl, row 21: ")
    assert problem in str(refused.value)
    assert "data.on_bad_row=skip" in str(refused.value)
    source = load("hh_rlhf", path, tmp_path, on_bad_row=OnBadRow.skip)
    assert len(both(source, "rankings")) == 20
    read = source.fingerprint()
    assert (read["rows_read"], read["rows_refused"]) == (21, 1)
    listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
    assert [entry["where"] for entry in listed] == ["hh.jsonl, row 21"]
    assert problem in listed[0]["problem"]


def test_our_own_format_holds_every_kind(tmp_path: Path) -> None:
    rows: list[dict[str, Any]] = [{"text": f"document {i}"} for i in range(20)]
    rows += [{"prompt": f"p{i}", "response": "r", "id": f"id{i}", "task": "t"} for i in range(20)]
    rows += [
        {
            "messages": [{"role": "user", "content": f"q{i}"}],
            "completions": ["a", "b"],
            "ranks": [1, 0],
            "margins": [0, 2.5],
        }
        for i in range(20)
    ]
    source = load("jsonl", write(tmp_path / "own.jsonl", rows))
    assert len(both(source, "texts")) == 20
    assert {d.prompt.id for d in both(source, "demonstrations")} == {f"id{i}" for i in range(20)}
    assert {r.margins[r.ranks.index(0)] for r in both(source, "rankings")} == {2.5}
    assert len(both(source, "prompts")) == 40
    assert source.fingerprint()["rows"] == {"demonstrations": 20, "rankings": 20, "prompts": 40, "texts": 20}


def test_characters_that_look_like_line_ends_stay_in_their_row(tmp_path: Path) -> None:
    rows = [json.dumps({"prompt": f"a {i}", "response": "b\u2028c\x85d"}, ensure_ascii=False) for i in range(9)]
    source = load("jsonl", write(tmp_path / "own.jsonl", rows))
    assert {d.response for d in both(source, "demonstrations")} == {"b\u2028c\x85d"}


def test_self_instruct_gives_one_demonstration_an_instance(tmp_path: Path) -> None:
    rows = [
        {
            "name": "sort",
            "instruction": f"Sort {i}.",
            "instances": [{"input": "b a", "output": "a b"}, {"input": "", "output": "x"}],
        }
        for i in range(10)
    ]
    source = load("self_instruct", write(tmp_path / "s.jsonl", rows))
    demonstrations = both(source, "demonstrations")
    assert len(demonstrations) == 20
    assert {d.prompt.messages[0].content for d in demonstrations} >= {"Sort 0.\n\nb a", "Sort 0."}
    assert {d.prompt.task for d in demonstrations} == {"sort"}


def test_alpaca_reads_one_json_list(tmp_path: Path) -> None:
    path = tmp_path / "alpaca.json"
    path.write_text(json.dumps([{"instruction": f"Add {i}.", "input": "1", "output": "2"} for i in range(10)]))
    assert len(both(load("alpaca", path), "demonstrations")) == 10
    path.write_text(json.dumps([{"instruction": "Add.", "input": "1"}]))
    with pytest.raises(UserError, match=r"alpaca\.json, row 1: it has no text under `output`"):
        load("alpaca", path)


@pytest.mark.parametrize("content", ["", "\n \n", "[]"])
def test_empty_file_is_refused(tmp_path: Path, content: str) -> None:
    path = tmp_path / "empty.json"
    path.write_text(content)
    with pytest.raises(UserError, match=r"empty\.json holds no rows; set data\.path"):
        load("alpaca", path)


def test_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no file .*data\.path"):
        load("jsonl", tmp_path / "none.jsonl")


def test_missing_kind_says_which_data_has_it_and_demonstrations_serve_as_text(tmp_path: Path) -> None:
    source = load("jsonl", write(tmp_path / "own.jsonl", [{"prompt": f"{i}", "response": "b"} for i in range(9)]))
    with pytest.raises(UserError, match=r"has no rankings; data=sandbox, hh_rlhf"):
        source.rankings(Split.train, no_sampler)
    texts = source.texts(Split.train)
    first = source.demonstrations(Split.train)[0]
    assert texts[0] == "\n\n".join([*(m.content for m in first.prompt.messages), first.response])


def test_empty_split_is_refused(tmp_path: Path) -> None:
    source = load("jsonl", write(tmp_path / "own.jsonl", [{"prompt": "only", "response": "b"}]))
    with pytest.raises(UserError, match=r"split of .* has no demonstrations.*data\.evaluation_fraction=0\.5"):
        both(source, "demonstrations")


def test_a_fraction_of_one_holds_out_every_row_whatever_the_data_says(tmp_path: Path) -> None:
    (tmp_path / "told").mkdir()
    for file in ("train.jsonl", "test.jsonl"):
        write(tmp_path / "told" / file, [{"prompt": f"{file} {i}", "response": "b"} for i in range(9)])
    source = load("jsonl", tmp_path / "told", evaluation_fraction=1.0)
    assert len(source.prompts(Split.evaluation)) == 18
    with pytest.raises(UserError, match=r"train split of .* has no demonstrations: data\.evaluation_fraction=1"):
        source.demonstrations(Split.train)


def test_rows_of_one_prompt_lie_in_one_split_whatever_the_seed(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 30}", "response": f"r{i}"} for i in range(300)]
    path = write(tmp_path / "own.jsonl", rows)
    sides = []
    for seed in (0, 1):
        config = DataConfig(source=DataSourceName.jsonl, path=str(path), evaluation_fraction=0.3)
        source = load_source(config, seed)
        train = {d.prompt.messages for d in source.demonstrations(Split.train)}
        held_out = {d.prompt.messages for d in source.demonstrations(Split.evaluation)}
        assert not train & held_out
        assert len(source.demonstrations(Split.train)) + len(source.demonstrations(Split.evaluation)) == 300
        assert 3 <= len(held_out) <= 15
        sides.append(held_out)
    assert sides[0] == sides[1]


def test_prompts_appear_once_each(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 10}", "response": f"r{i}"} for i in range(30)]
    assert len(both(load("jsonl", write(tmp_path / "own.jsonl", rows)), "prompts")) == 10


def test_max_rows_keeps_the_first(tmp_path: Path) -> None:
    path = write(tmp_path / "own.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(30)])
    source = load("jsonl", path, max_rows=12)
    assert {d.prompt.messages[0].content for d in both(source, "demonstrations")} == {f"p{i}" for i in range(12)}
    assert source.fingerprint()["rows_read"] == 12


def test_prompts_path_gives_the_prompts_and_nothing_else(tmp_path: Path) -> None:
    rows = write(tmp_path / "own.jsonl", [{"prompt": f"p{i}", "response": "r"} for i in range(20)])
    prompts = write(tmp_path / "prompts.jsonl", [{"prompt": f"q{i}"} for i in range(20)])
    source = load("jsonl", rows, prompts_path=str(prompts))
    assert {p.messages[0].content for p in both(source, "prompts")} == {f"q{i}" for i in range(20)}
    assert {d.prompt.messages[0].content for d in both(source, "demonstrations")} == {f"p{i}" for i in range(20)}


def test_folder_is_read_in_name_order_and_its_hash_follows_the_bytes(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    write(folder / "a.jsonl", [{"prompt": f"a{i}", "response": "r"} for i in range(9)])
    write(folder / "b.jsonl.gz", [{"prompt": f"b{i}", "response": "r"} for i in range(9)])
    first = load("jsonl", folder)
    assert len(both(first, "demonstrations")) == 18
    write(folder / "a.jsonl", [{"prompt": f"a{i}", "response": "s"} for i in range(9)])
    assert load("jsonl", folder).fingerprint()["sha256"] != first.fingerprint()["sha256"]


@needs_shared
def test_real_harmless_rows_all_arrive_or_are_refused() -> None:
    config = DataConfig(source=DataSourceName.hh_rlhf, path=str(HARMLESS), on_bad_row=OnBadRow.skip)
    source = load_source(config, 0)
    read = source.fingerprint()
    assert read["rows_read"] == 2312
    assert read["rows_refused"] == 9  # 4 empty chosen replies, 5 whose transcripts part early
    assert read["rows"] == {"demonstrations": 2303, "rankings": 2303, "prompts": 2301}
    assert len(both(source, "rankings")) == 2303
    with pytest.raises(UserError, match="row 87: `chosen` ends with an empty response"):
        load("hh_rlhf", HARMLESS)


@needs_shared
def test_real_seed_tasks_all_arrive() -> None:
    source = load_source(DataConfig(source=DataSourceName.self_instruct, path=str(SEED_TASKS)), 0)
    read = source.fingerprint()
    assert (read["rows_read"], read["rows_refused"]) == (175, 0)
    assert len(both(source, "demonstrations")) == read["rows"]["demonstrations"] == 175
    with pytest.raises(UserError, match="has no rankings"):
        source.rankings(Split.train, no_sampler)


def test_what_the_quality_tools_leave_out_is_listed_counted_and_not_bad(tmp_path: Path) -> None:
    rows = [{"prompt": f"p{i % 15}", "response": "r"} for i in range(20)] + [{"prompt": "long", "response": "w " * 30}]
    path = write(tmp_path / "own.jsonl", rows)
    quality = QualityConfig(duplicates=True, max_response_words=20)
    for _ in range(2):  # the second time they are found screened already
        source = load("jsonl", path, tmp_path, quality=quality)  # bad rows are refused, and these are none
        assert len(both(source, "demonstrations")) == 15
        assert source.fingerprint()["records_screened"] == 6
        listed = [json.loads(line) for line in (tmp_path / "bad_rows.jsonl").read_text().splitlines()]
        assert len(listed) == 6
        assert listed[0]["where"] == "the record of jsonl:own.jsonl:16"
        assert "jsonl:own.jsonl:1" in listed[0]["problem"]
    assert len(both(load("jsonl", path, tmp_path), "demonstrations")) == 21


def test_contamination_takes_training_records_alone(tmp_path: Path) -> None:
    shared = "one two three four five six seven"
    rows = [{"prompt": f"{i} {shared} {i}", "response": "r"} for i in range(40)]
    source = load("jsonl", write(tmp_path / "own.jsonl", rows), quality=QualityConfig(contamination_words=6))
    assert 0 < len(source.demonstrations(Split.evaluation)) < 40
    with pytest.raises(UserError, match="train split"):
        source.demonstrations(Split.train)


def test_other_phrasings_are_other_data(tmp_path: Path) -> None:
    rows = write(tmp_path / "t.jsonl", [{"x": f"{i}", "y": "b"} for i in range(30)])
    templates = tmp_path / "t.yaml"
    hashes = []
    for words in ("Say {x}.", "Tell me {x}."):
        templates.write_text(f't:\n  phrasings:\n    - {{prompt: "{words}", response: "{{y}}"}}\n')
        source = load("phrasings", rows, phrasings=str(templates))
        assert both(source, "demonstrations")[0].prompt.messages[0].content.startswith(words[:3])
        hashes.append(source.fingerprint()["phrasings_sha256"])
    assert hashes[0] != hashes[1]

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.config import DataConfig, DataSourceName, MixtureConfig, OnBadRow, QualityConfig
from rlhf.data.mixture_file import load_parts
from rlhf.errors import UserError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "mix.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_a_part_is_a_source_a_weight_and_any_setting_of_reading(tmp_path: Path) -> None:
    text = """
parts:
  helpful: {data: hh_rlhf, path: helpful.jsonl.gz, weight: 2.5, max_rows: 10, evaluation_fraction: 0.2}
  own:
    data: jsonl
    path: own.jsonl
    columns: {prompt: question, response: no}
    quality: {duplicates: true, languages: [en, no]}
    split_by_user: true
    max_rows: null
"""
    helpful, own = load_parts(written(tmp_path, text))
    assert (helpful.name, helpful.weight, own.name, own.weight) == ("helpful", 2.5, "own", 1.0)
    assert helpful.config == DataConfig(
        source=DataSourceName.hh_rlhf,
        path=str(tmp_path / "helpful.jsonl.gz"),
        max_rows=10,
        evaluation_fraction=0.2,
    )
    assert own.config == DataConfig(
        source=DataSourceName.jsonl,
        path=str(tmp_path / "own.jsonl"),
        columns={"prompt": "question", "response": "no"},
        quality=QualityConfig(duplicates=True, languages=["en", "no"]),
        split_by_user=True,
    )


def test_paths_are_relative_to_the_file_and_hub_ids_are_left(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "folder").mkdir()
    text = """
parts:
  deep: {data: jsonl, path: sub/own.jsonl, prompts_path: ../p.jsonl}
  whole: {data: jsonl, path: /data/own.jsonl}
  hub: {data: alpaca, path: tatsu-lab/alpaca}
  local: {data: jsonl, path: mine/folder}
  said: {data: phrasings, path: nli.csv, phrasings: nli.yaml}
"""
    parts = {part.name: part.config for part in load_parts(written(tmp_path, text))}
    assert parts["deep"].path == str(tmp_path / "sub" / "own.jsonl")
    assert parts["deep"].prompts_path == str(tmp_path / ".." / "p.jsonl")
    assert parts["whole"].path == "/data/own.jsonl"
    assert parts["hub"].path == "tatsu-lab/alpaca"
    assert parts["local"].path == str(tmp_path / "mine" / "folder")
    assert parts["said"].phrasings == str(tmp_path / "nli.yaml")


def test_a_part_takes_from_the_mixture_what_it_does_not_set_itself(tmp_path: Path) -> None:
    whole = DataConfig(
        source=DataSourceName.mixture,
        path="mix.yaml",
        split="validation",
        evaluation_fraction=0.3,
        max_rows=7,
        on_bad_row=OnBadRow.skip,
        cache="/cache",
        mixture=MixtureConfig(rows=5),
        quality=QualityConfig(duplicates=True, languages=["en"]),
    )
    text = "parts:\n  a: {data: jsonl, path: a.jsonl}\n  b: {data: jsonl, path: b.jsonl, max_rows: 9}\n"
    a, b = load_parts(written(tmp_path, text), whole)
    assert a.config == DataConfig(
        source=DataSourceName.jsonl,
        path=str(tmp_path / "a.jsonl"),
        evaluation_fraction=0.3,
        max_rows=7,
        on_bad_row=OnBadRow.skip,
        cache="/cache",
        quality=QualityConfig(duplicates=True, languages=["en"]),
    )
    assert (b.config.max_rows, b.config.evaluation_fraction) == (9, 0.3)


def test_settings_are_what_decides_the_records_beside_the_files_bytes(tmp_path: Path) -> None:
    text = "parts: {a: {data: jsonl, path: a.jsonl, streaming: true, columns: {prompt: q}, quality: {pii: true}}}\n"
    (part,) = load_parts(written(tmp_path, text), DataConfig(cache="/c", workers=2, max_rows=3))
    assert part.settings == {"source": "jsonl", "columns.prompt": "q", "quality.pii": True, "max_rows": 3}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("part:\n  a: {data: jsonl}\n", r"mix.yaml has no setting part; .* Did you mean parts\?"),
        ("rows: 5\nparts: {}\n", "mix.yaml: rows is no matter of the parts; set data.mixture.rows"),
        ("parts: {}\n", "mix.yaml is to hold `parts`, a mapping"),
        ("parts: [a]\n", "mix.yaml is to hold `parts`, a mapping"),
        ("parts: {a: jsonl}\n", "mix.yaml, part a is no mapping"),
        ("parts: {a/b: {data: jsonl, path: x}}\n", "mix.yaml, part a/b: a part's name has letters"),
        ("parts: {a: {path: x}}\n", "mix.yaml, part a does not say `data`"),
        ("parts: {a: {data: hh_rhlf, path: x}}\n", r"part a has no data=hh_rhlf; .* Did you mean hh_rlhf"),
        ("parts: {a: {data: mixture, path: x}}\n", "part a: a mixture within a mixture is not read"),
        ("parts: {a: {data: jsonl, pth: x}}\n", r"part a has no setting pth\. Did you mean path\?"),
        ("parts: {a: {source: jsonl}}\n", "part a does not say `data`"),
        ("parts: {a: {data: jsonl, path: x, source: jsonl}}\n", "part a has no setting source"),
        (
            "parts: {a: {data: jsonl, path: x, quality: {duplicate: true}}}\n",
            r"no setting quality.duplicate\. Did you mean quality.duplicates",
        ),
        ("parts: {a: {data: jsonl, path: x, quality: yes}}\n", "part a has no setting quality"),
        ("parts: {a: {data: jsonl, path: x, template: plain}}\n", "template is the same for all parts; set data.templ"),
        ("parts: {a: {data: jsonl, path: x, mixture: {rows: 3}}}\n", "mixture.rows is the same for all parts"),
        ("parts: {a: {data: jsonl, path: x, on_bad_row: skip}}\n", "on_bad_row is the same for all parts"),
        ("parts: {a: {data: jsonl, path: x, max_rows: few}}\n", "part a: max_rows=few does not fit; it takes a whole"),
        ("parts: {a: {data: jsonl, path: x, max_rows: 0}}\n", "part a: data.max_rows is 0; use 1 or more"),
        ("parts: {a: {data: jsonl}}\n", "part a: data=jsonl needs a file"),
        ("parts: {a: {data: jsonl, path: }}\n", "part a: data=jsonl needs a file"),
        ("parts: {a: {data: jsonl, path: x, weight: 0}}\n", "part a: weight is 0; use a number above 0"),
        ("parts: {a: {data: jsonl, path: x, weight: nan}}\n", "part a: weight is nan"),
        ("parts: {a: {data: jsonl, path: x, weight: [1]}}\n", "part a: weight is "),
        ("parts:\n  a: {data: jsonl, path: x}\n  a: {data: jsonl, path: y}\n", "mix.yaml, line 3: the key a was given"),
    ],
)
def test_a_wrong_file_is_refused_by_part_and_key(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError, match=problem):
        load_parts(written(tmp_path, text))


def test_the_example_in_the_documentation_is_one_that_loads(tmp_path: Path) -> None:
    from rlhf.data import mixture_file

    assert mixture_file.__doc__ is not None
    example = mixture_file.__doc__.split("\n\n")[1]
    parts = load_parts(written(tmp_path, "\n".join(line.removeprefix("    ") for line in example.splitlines())))
    assert [(part.name, part.weight) for part in parts] == [("helpful", 2.0), ("own", 1.0)]

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data import plain_yaml
from rlhf.errors import UserError


def written(tmp_path: Path, text: str) -> str:
    path = tmp_path / "given.yaml"
    path.write_text(text, encoding="utf-8")
    return str(path)


def test_words_that_yaml_takes_for_something_else_stay_words(tmp_path: Path) -> None:
    path = written(tmp_path, "no: yes\n0: [1e3, 2020-01-01, ~]\nempty:\nnested: {on: off}\n")
    assert plain_yaml.read(path, "data.path") == {
        "no": "yes",
        "0": ["1e3", "2020-01-01", "~"],
        "empty": "",
        "nested": {"on": "off"},
    }


def test_an_anchor_repeats_what_it_names(tmp_path: Path) -> None:
    path = written(tmp_path, "a: &shared {x: 1}\nb: *shared\n")
    assert plain_yaml.read(path, "data.path") == {"a": {"x": "1"}, "b": {"x": "1"}}


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("a: 1\nb: [1\n", "given.yaml, line 3: this is no YAML"),
        ("a: 1\nb: {x: 1,\n  x: 2}\n", "given.yaml, line 3: the key x was given before"),
        ("? [1, 2]\n: a\n", "given.yaml, line 1: a key is a list or a mapping"),
        ("- a\n", "given.yaml is no mapping"),
        ("", "given.yaml is no mapping"),
        ("a: &a [*a]\n", "given.yaml: an alias (*name) refers to what it is a part of"),
        ("a: \x07\n", "given.yaml: this is no YAML"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_its_line(tmp_path: Path, text: str, problem: str) -> None:
    with pytest.raises(UserError) as refused:
        plain_yaml.read(written(tmp_path, text), "data.path")
    assert str(refused.value).startswith(problem)


def test_a_file_that_cannot_be_read_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"data\.phrasings=.*missing\.yaml cannot be read: No such file"):
        plain_yaml.read(str(tmp_path / "missing.yaml"), "data.phrasings")
    (tmp_path / "latin.yaml").write_bytes("a: \xe9t\xe9\n".encode("latin-1"))
    with pytest.raises(UserError, match=r"latin\.yaml is not UTF-8 text"):
        plain_yaml.read(str(tmp_path / "latin.yaml"), "data.phrasings")


def test_aliases_of_aliases_that_unfold_without_end_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "bomb.yaml"
    levels = [f"a{i}: &a{i} [{', '.join(f'*a{i - 1}' for _ in range(10))}]" for i in range(1, 12)]
    path.write_text("\n".join(["a0: &a0 [x, x]", *levels]))
    with pytest.raises(UserError, match=r"bomb\.yaml unfolds to more than 1,000,000 values"):
        plain_yaml.read(str(path), "data.phrasings")

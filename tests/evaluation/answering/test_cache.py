from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from rlhf.evaluation.answering import cache
from rlhf.evaluation.answering.cache import AnswerCache


class Making:
    """Something costly to make; counts how often it was made."""

    def __init__(self, value: Any) -> None:
        self.value = value
        self.times = 0

    def __call__(self) -> Any:
        self.times += 1
        return self.value


def test_a_value_comes_back_with_the_same_bits_and_is_made_once(tmp_path: Path) -> None:
    making = Making([0.1 + 0.2, -1e-300, 12345.678901234567, float("-inf"), [3, 1]])
    first = AnswerCache(tmp_path).remember({"what": "a"}, making)
    cache = AnswerCache(tmp_path)
    assert cache.remember({"what": "a"}, making) == first == making.value
    assert (making.times, cache.found, cache.made) == (1, 1, 0)


@pytest.mark.parametrize("other", [{"what": "b"}, {"what": "a", "seed": 1}, {"what": "a", "seed": "0"}])
def test_whatever_differs_in_what_it_was_made_from_makes_another_value(tmp_path: Path, other: dict[str, Any]) -> None:
    cache = AnswerCache(tmp_path)
    cache.remember({"what": "a", "seed": 0}, lambda: 1)
    assert cache.remember(other, lambda: 2) == 2
    assert cache.remember({"seed": 0, "what": "a"}, lambda: 3) == 1


def test_another_format_of_the_code_makes_it_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    AnswerCache(tmp_path).remember({"what": "a"}, lambda: 1)
    monkeypatch.setattr(cache, "FORMAT", cache.FORMAT + 1)
    assert AnswerCache(tmp_path).remember({"what": "a"}, lambda: 2) == 2


@pytest.mark.parametrize("damage", ["cut", "changed", "empty", "other"])
def test_a_damaged_file_is_made_again(tmp_path: Path, damage: str) -> None:
    AnswerCache(tmp_path).remember({"what": "a"}, lambda: [1, 2])
    [path] = tmp_path.iterdir()
    whole = path.read_text()
    path.write_text(
        {"cut": whole[:-9], "changed": whole.replace("[1, 2]", "[1, 3]"), "empty": "", "other": "[]"}[damage]
    )
    making = Making([1, 2])
    assert AnswerCache(tmp_path).remember({"what": "a"}, making) == [1, 2]
    assert making.times == 1
    assert path.read_text() == whole


def test_without_a_folder_or_a_key_nothing_is_kept(tmp_path: Path) -> None:
    making = Making(1)
    for kept, made_from in ((AnswerCache(None), {"what": "a"}), (AnswerCache(tmp_path), None)):
        assert [kept.remember(made_from, making) for _ in range(2)] == [1, 1]
    assert making.times == 4
    assert list(tmp_path.iterdir()) == []


def test_a_file_says_what_it_was_made_from(tmp_path: Path) -> None:
    AnswerCache(tmp_path).remember({"what": "a", "seed": 3}, lambda: 1)
    [path] = tmp_path.iterdir()
    assert json.loads(path.read_text())["made_from"] == {"what": "a", "seed": 3}

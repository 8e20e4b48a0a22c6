"""What a reward stage keeps of its rankings is read back whole, or refused."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlhf.data.records import Ranking, Split
from rlhf.errors import UserError
from rlhf.reward.rankings import read_rankings, write_rankings
from tests.support.fakes import prompt


def kept(path: Path) -> dict[Split, list[Ranking]]:
    rankings = {split: [Ranking(prompt(f"q{i}", i), ("a", "b"), (0, 1)) for i in range(3)] for split in Split}
    write_rankings(path, rankings)
    return rankings


def test_rankings_are_read_as_they_were_written(tmp_path: Path) -> None:
    path = tmp_path / "rankings.jsonl"
    assert kept(path) == read_rankings(path)


@pytest.mark.parametrize("cut", [-20, 0])
@pytest.mark.parametrize("tail", [b"", b"\x00" * 64, b"\xff\xfe"])
def test_a_damaged_file_is_a_sentence(tmp_path: Path, cut: int, tail: bytes) -> None:
    path = tmp_path / "rankings.jsonl"
    kept(path)
    whole = path.read_bytes()
    path.write_bytes((whole[:cut] if cut else whole) + tail)
    if not cut and not tail:
        return
    with pytest.raises(UserError, match=r"rankings\.jsonl is damaged in line .*move it away"):
        read_rankings(path)

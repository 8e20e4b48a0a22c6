from __future__ import annotations

import dataclasses
import os
import random
import signal
import sqlite3
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.labeling import store as module
from rlhf.labeling.store import JudgedError, Store
from tests.support.labeling import item, judgement

ROOT = Path(__file__).resolve().parents[2]
ITEMS = [item(number) for number in range(5)]
KEYS = [one.key for one in ITEMS]
# Judges item after item as one labeler, and says each id once it is kept.
WRITER = """
    import sys
    from pathlib import Path
    from rlhf.labeling.store import Store
    from tests.support.labeling import item, judgement

    path, labeler, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
    store = Store(path)
    items = [item(number) for number in range(count)]
    store.add_items(items)
    for one in items:
        made = judgement(one, (0, 1, 2), labeler)
        assert store.add(made)
        print(made.id, flush=True)
"""


def opened(path: Path) -> Store:
    store = Store(path / "labels.sqlite")
    store.add_items(ITEMS)
    return store


def writer(path: Path, labeler: str, count: int) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(WRITER), str(path / "labels.sqlite"), labeler, str(count)],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
    )


def test_what_was_said_is_read_back_by_whoever_opens_the_file_next(tmp_path: Path) -> None:
    said = judgement(ITEMS[0], (0, 1, 0), quality=(7, None, 2), attributes=(None, ["violent"], None))
    skipped = judgement(ITEMS[1])
    for each in (said, skipped):
        assert opened(tmp_path).add(each)
    first, second = opened(tmp_path).standing()
    assert dataclasses.replace(first, judged_at="") == said
    assert first.judged_at.endswith("+00:00")
    assert second.skipped
    assert opened(tmp_path).items() == {one.key: one for one in ITEMS[:2]}
    assert opened(tmp_path).project == opened(tmp_path).project


def test_the_same_judgement_sent_twice_counts_once_even_after_it_was_undone(tmp_path: Path) -> None:
    store, said = opened(tmp_path), judgement(ITEMS[0], (0, 1, 2))
    assert store.add(said)
    assert not store.add(said)
    assert len(store.standing()) == 1
    assert store.undo("Ann", said.id) is not None
    assert not store.add(said)
    assert store.standing() == []


def test_a_labeler_judges_an_item_once_until_it_is_undone(tmp_path: Path) -> None:
    store, said, again = opened(tmp_path), judgement(ITEMS[0], (0, 1, 2)), judgement(ITEMS[0], (2, 1, 0))
    store.add(said)
    with pytest.raises(JudgedError):
        store.add(again)
    store.add(judgement(ITEMS[0], (0, 0, 0), "Ben"))
    assert [one.labeler for one in store.standing()] == ["Ann", "Ben"]
    assert store.undo("Ann", said.id) is not None
    assert store.add(again)
    assert [one.id for one in store.standing() if one.labeler == "Ann"] == [again.id]


def test_undo_takes_back_one_judgement_once_and_nobody_elses_and_keeps_the_row(tmp_path: Path) -> None:
    store, said = opened(tmp_path), judgement(ITEMS[0], (0, 1, 2), quality=(1, 2, 3))
    store.add(said)
    store.add(judgement(ITEMS[1], (0, 1, 2)))
    assert store.undo("Ben", said.id) is None
    undone = store.undo("Ann", said.id)
    assert undone is not None
    assert undone.quality == said.quality
    assert store.undo("Ann", said.id) is None
    assert len(store.standing()) == 1
    assert store.take("Ann", KEYS, None) == KEYS[0]
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("SELECT count(*), count(undone_at) FROM judgements").fetchone() == (2, 1)


def test_the_last_judgement_is_the_newest_that_stands(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert store.last("Ann") is None
    made = [judgement(one, (0, 1, 2)) for one in ITEMS[:3]]
    for each in made:
        store.add(each)
    store.undo("Ann", made[2].id)
    assert store.last("Ann") == made[1].id


def test_an_item_in_hand_stays_there_and_what_is_judged_or_skipped_does_not_come_again(tmp_path: Path) -> None:
    store = opened(tmp_path)
    assert [store.take("Ann", KEYS, None) for _ in range(3)] == [KEYS[0]] * 3
    assert store.take("Ben", KEYS, None) == KEYS[0]
    store.add(judgement(ITEMS[0], (0, 1, 2)))
    store.add(judgement(ITEMS[1]))
    assert store.take("Ann", KEYS, None) == KEYS[2]
    assert store.take("Ann", KEYS[:2], None) is None


def test_with_overlap_one_two_labelers_never_get_the_same_item(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = opened(tmp_path)
    assert store.take("Ann", KEYS, 1) == KEYS[0]
    assert store.take("Ben", KEYS, 1) == KEYS[1]
    store.add(judgement(ITEMS[0], (0, 1, 2), "Ann"))
    store.add(judgement(ITEMS[1], labeler="Ben"))  # skipped: another's turn
    assert store.take("Ben", KEYS, 1) == KEYS[2]
    assert store.take("Ann", KEYS, 1) == KEYS[1]
    assert store.take("Cal", KEYS[:3], 1) is None
    assert store.take("Cal", KEYS[:3], 2) == KEYS[0]
    monkeypatch.setattr(module, "HELD_S", -1)  # what Ann and Ben hold was left long ago
    assert store.take("Dee", KEYS[:3], 1) == KEYS[1]


def test_a_judgement_that_comes_late_is_kept_although_the_item_has_enough(tmp_path: Path) -> None:
    store = opened(tmp_path)
    for labeler in ("Ann", "Ben"):
        assert store.add(judgement(ITEMS[0], (0, 1, 2), labeler))
    assert len(store.standing()) == 2


def test_processes_that_write_at_once_lose_nothing(tmp_path: Path) -> None:
    running = [writer(tmp_path, f"labeler {number}", 40) for number in range(3)]  # the first makes the file
    said = {line for each in running for line in each.communicate(timeout=120)[0].split()}
    assert [each.returncode for each in running] == [0, 0, 0]
    kept = [one.id for one in Store(tmp_path / "labels.sqlite").standing()]
    assert len(kept) == 120
    assert set(kept) == said


@pytest.mark.slow
def test_a_writer_killed_at_any_moment_has_kept_all_that_it_said(tmp_path: Path) -> None:
    rng = random.Random(0)
    said: set[str] = set()
    for number in range(8):
        process = writer(tmp_path, f"labeler {number}", 5_000)
        assert process.stdout is not None
        said.add(process.stdout.readline().strip())  # it has begun
        time.sleep(rng.uniform(0, 0.2))
        os.kill(process.pid, signal.SIGKILL)
        said |= {line.strip() for line in process.stdout if line.endswith("\n")}
        process.wait()
    store = Store(tmp_path / "labels.sqlite")
    kept = [one.id for one in store.standing()]
    assert said <= set(kept)
    assert len(kept) == len(set(kept)) <= len(said) + 8  # one each may be kept and not yet said
    with sqlite3.connect(store.path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)


def test_a_file_of_another_kind_or_version_is_refused_and_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "labels.sqlite"
    path.write_text("no database, but longer than one hundred bytes, which is what a header of one takes up, " * 3)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"labels\.sqlite cannot be used \(file is not a database\); move it away"):
        Store(path)
    assert path.read_bytes() == before
    path.unlink()
    Store(path)
    with sqlite3.connect(path) as connection:
        connection.execute("PRAGMA user_version = 7")
    with pytest.raises(UserError, match="has version 7 of its layout, and this is version 1"):
        Store(path)

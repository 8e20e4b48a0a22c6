"""Run folders: what is written is whole, what stood there before survives a failure."""

from __future__ import annotations

import errno
import json
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from rlhf.errors import UserError
from rlhf.runtime import files
from rlhf.runtime import folder as folders
from rlhf.runtime.files import save_folder_atomic, write_json_atomic
from rlhf.runtime.folder import StageFolder, describe_model, hash_folder, model_hash


def _model(folder: Path, weights: bytes = b"weights") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(weights)
    (folder / "config.json").write_text("{}")
    return folder


def test_saved_folder_replaces_the_old_one_whole(tmp_path: Path) -> None:
    target = _model(tmp_path / "model", b"old")
    (target / "stale.json").write_text("{}")
    with save_folder_atomic(target) as folder:
        (folder / "model.safetensors").write_bytes(b"new")
    assert [file.name for file in target.iterdir()] == ["model.safetensors"]
    assert (target / "model.safetensors").read_bytes() == b"new"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_error_while_saving_leaves_the_old_folder_and_no_rest(tmp_path: Path) -> None:
    target = _model(tmp_path / "model", b"old")
    with pytest.raises(RuntimeError, match="crash"), save_folder_atomic(target) as folder:
        (folder / "model.safetensors").write_bytes(b"half")
        raise RuntimeError("crash")
    assert (target / "model.safetensors").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_kill_between_the_two_renames_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = _model(tmp_path / "model", b"old")
    renames: list[object] = []

    class Killed(BaseException):
        pass

    real = os.rename

    def rename(a: Path, b: Path) -> None:
        renames.append(a)
        if len(renames) == 2:
            raise Killed
        real(a, b)

    monkeypatch.setattr(files.os, "rename", rename)
    # A killed process runs no handler either: without recovery only what lies aside is left.
    monkeypatch.setattr(files, "_put_back", lambda path: None)
    with pytest.raises(Killed), save_folder_atomic(target) as folder:
        (folder / "model.safetensors").write_bytes(b"new")
    assert not target.exists()
    monkeypatch.undo()
    with pytest.raises(RuntimeError), save_folder_atomic(target):
        raise RuntimeError
    assert (target / "model.safetensors").read_bytes() == b"old"


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", folder], capture_output=True)
    if mounted.returncode != 0:
        pytest.skip("mounting a small file system needs root")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_full_disk_is_one_sentence_and_the_old_model_stays(small_disk: Path) -> None:
    target = _model(small_disk / "model", b"old" * 1000)
    with pytest.raises(UserError, match=r"disk is full: .*model could not be written .* set run\.root"):
        with save_folder_atomic(target) as folder:
            (folder / "model.safetensors").write_bytes(os.urandom(1 << 20))
    assert (target / "model.safetensors").read_bytes() == b"old" * 1000
    with pytest.raises(UserError, match="disk is full"):
        write_json_atomic(small_disk / "big.json", "x" * (1 << 20))
    assert [path.name for path in small_disk.iterdir()] == ["model"]


def test_full_disk_is_seen_through_other_libraries_exceptions(small_disk: Path) -> None:
    torch = pytest.importorskip("torch")
    from safetensors.torch import save_file

    tensors = {"weight": torch.zeros(1 << 18)}
    for save in (lambda to: save_file(tensors, to / "a.safetensors"), lambda to: torch.save(tensors, to / "a.pt")):
        with pytest.raises(UserError, match="disk is full"), save_folder_atomic(small_disk / "model") as folder:
            save(folder)


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_full_disk_and_exhausted_quota_are_known_by_number(tmp_path: Path, number: int) -> None:
    with pytest.raises(UserError, match="disk is full"), save_folder_atomic(tmp_path / "model"):
        raise OSError(number, "in another language")


def test_old_folder_returns_when_the_new_one_cannot_take_its_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target = _model(tmp_path / "model", b"old")
    real = os.rename

    def rename(a: Path, b: Path) -> None:
        if ".new-" in str(a):
            raise PermissionError(errno.EACCES, "not allowed", str(b))
        real(a, b)

    monkeypatch.setattr(files.os, "rename", rename)
    with pytest.raises(PermissionError), save_folder_atomic(target) as folder:
        (folder / "model.safetensors").write_bytes(b"new")
    assert (target / "model.safetensors").read_bytes() == b"old"
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def test_written_json_is_standard(tmp_path: Path) -> None:
    write_json_atomic(tmp_path / "a.json", {"loss": float("nan"), "list": [float("inf"), 1.0], "n": {"x": -1}})
    text = (tmp_path / "a.json").read_text()
    assert json.loads(text, parse_constant=lambda name: pytest.fail(name)) == {
        "loss": None,
        "list": [None, 1.0],
        "n": {"x": -1},
    }


def test_hash_is_of_the_model_and_not_of_where_it_lies(tmp_path: Path) -> None:
    one, two = _model(tmp_path / "one"), _model(tmp_path / "two")
    (two / "README.md").write_text("a card")
    (two / "training_args.json").write_text("{}")
    assert hash_folder(one) == hash_folder(two)
    (two / "model.safetensors").write_bytes(b"other..")
    assert hash_folder(one) != hash_folder(two)
    (one / "config.json").rename(one / "other.json")
    assert hash_folder(one) != hash_folder(_model(tmp_path / "three"))


def test_model_hash_reads_weights_again_only_when_they_changed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stage = StageFolder(tmp_path / "sft")
    _model(stage.model_dir)
    stage.write_manifest(status="complete", model=describe_model(stage.model_dir))
    true = hash_folder(stage.model_dir)
    with monkeypatch.context() as patch:
        patch.setattr(folders, "hash_folder", lambda path: pytest.fail("read the weights"))
        assert model_hash(stage.model_dir) == true
    (stage.model_dir / "model.safetensors").write_bytes(b"touched")
    assert model_hash(stage.model_dir) == hash_folder(stage.model_dir) != true


def test_checkpoints_keep_the_newest_two_and_ignore_half_written_ones(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "ppo")
    assert stage.latest_checkpoint() is None
    for step in (9, 10, 100):
        with stage.checkpoint(step, keep=2) as folder:
            (folder / "state").write_text(str(step))
    with pytest.raises(RuntimeError), stage.checkpoint(200, keep=2) as folder:
        (folder / "state").write_text("half")
        raise RuntimeError
    (stage.checkpoints_dir / "step-300").mkdir()  # no checksums
    step, folder = stage.latest_checkpoint() or pytest.fail("no checkpoint")
    assert (step, (folder / "state").read_text()) == (100, "100")
    assert not (stage.checkpoints_dir / "step-9").exists()
    assert (stage.checkpoints_dir / "step-10").exists()


def test_damaged_manifest_is_a_sentence(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path)
    stage.write_manifest(status="running")
    stage.write_manifest(seed=1)
    assert stage.manifest == {"status": "running", "seed": 1}
    stage.manifest_path.write_text('{"status": ')
    with pytest.raises(UserError, match=r"manifest\.json is damaged"):
        _ = stage.complete


def test_what_killed_writes_leave_goes_with_the_next_start_and_nothing_else(tmp_path: Path) -> None:
    stage = StageFolder(tmp_path / "sft")
    stage.write_manifest(status="running")
    with stage.checkpoint(1, keep=2) as checkpoint:
        (checkpoint / "state.json").write_text("{}")
    stay = sorted(tmp_path.rglob("*"))
    kept = stage.checkpoints_dir / "step-1"
    left = [stage.path / ".manifest.json.r3hoc9b7", kept / ".state.json.abcdefgh"]
    for file in left:
        file.write_text("half")
    (stage.checkpoints_dir / ".step-7.new-k2_9mzpq").mkdir()  # of a step that nobody will write again
    (stage.path / ".notes").write_text("a person's own")
    moved = stage.checkpoints_dir / ".step-1.old"
    kept.rename(moved)  # killed between the two renames
    stage.tidy()
    assert sorted(tmp_path.rglob("*")) == sorted([*stay, stage.path / ".notes"])
    assert stage.latest_checkpoint() == (1, kept)


@pytest.mark.parametrize("torn", [b"\x00" * 512, b"\xff\xfe\xff", b'{"status": "comp'])
def test_a_manifest_of_torn_bytes_is_a_sentence(tmp_path: Path, torn: bytes) -> None:
    stage = StageFolder(tmp_path / "sft")
    stage.path.mkdir()
    stage.manifest_path.write_bytes(torn)
    with pytest.raises(UserError, match=r"manifest\.json is damaged .*move .*sft away"):
        _ = stage.manifest


def test_a_place_where_no_folder_can_be_is_not_a_full_disk() -> None:
    path = Path("/proc/nowhere/demo/sft")
    with pytest.raises(OSError) as caught:  # noqa: PT011, the system's own
        path.mkdir(parents=True)
    assert "cannot be written" in str(files.refused_by_disk(caught.value, path))

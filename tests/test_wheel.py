"""The built wheel works on its own, away from the checkout."""

from __future__ import annotations

import os
import subprocess
import sys
import sysconfig
import venv
import zipfile
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).resolve().parent.parent


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    pytest.importorskip("hatchling")
    target = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(target)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True)
    (built,) = target.glob("*.whl")
    return built


@pytest.fixture(scope="module")
def python(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with this wheel, that finds its dependencies where these tests do."""
    home = tmp_path_factory.mktemp("venv")
    venv.create(home, with_pip=False)
    (site,) = home.glob("lib/python*/site-packages")
    with zipfile.ZipFile(wheel) as archive:  # what pip does with a wheel of pure Python, without needing an index
        archive.extractall(site)
    # Only the paths, not their .pth files: an editable install of the checkout must not come along.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return home / "bin" / "python"


def run(python: Path, folder: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    return subprocess.run(
        [str(python), "-m", "rlhf", *words],
        cwd=folder,
        env={**environment, "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        timeout=600,
    )


def test_wheel_holds_config_stages_and_base_models(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        models = sum(info.file_size for info in archive.infolist() if info.filename.startswith("rlhf/sandbox/models/"))
    held = ["rlhf/conf/config.yaml", "rlhf/conf/recipe/tldr.yaml", "stages/ppo.py", "rlhf/chain/runner.py"]
    for name in (*held, "rlhf/py.typed"):
        assert name in names
    for size in "sml":
        assert f"rlhf/sandbox/models/sandbox-{size}/model.safetensors" in names
    assert models < 12e6
    assert not [name for name in names if name.startswith(("tests/", "conf/", "runs/"))]


def test_help_and_a_stage_run_from_the_wheel(python: Path, tmp_path: Path) -> None:
    helped = run(python, tmp_path, "--help")
    assert helped.returncode == 0, helped.stderr
    assert "sandbox-m" in helped.stdout
    trained = run(python, tmp_path, "+debug=tiny", "stage=sft")
    assert trained.returncode == 0, trained.stderr
    assert (tmp_path / "runs" / "demo" / "sft" / "model" / "model.safetensors").is_file()
    assert [path.name for path in tmp_path.iterdir()] == ["runs"]

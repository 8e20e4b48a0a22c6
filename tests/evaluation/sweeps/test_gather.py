from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from rlhf.evaluation.sweeps.gather import KL_COEF, PTX_COEF, gather
from rlhf.runtime.folder import StageFolder


class Runs:
    """Run folders as the pipeline leaves them, without weights."""

    def __init__(self, root: Path) -> None:
        self.run = root / "demo"
        self.root = root

    def base(self, name: str, size: int = 10) -> Path:
        path = self.root / "models" / name
        path.mkdir(parents=True, exist_ok=True)
        (path / "model.safetensors").write_bytes(b"x" * size)
        return path

    def stage(self, folder: Path, config: dict[str, Any], parents: dict[str, Path], seed: int = 0, **more: Any) -> Path:
        made = StageFolder(folder)
        made.model_dir.mkdir(parents=True)
        made.write_manifest(
            **{
                "status": "complete",
                "config": config,
                "seed": seed,
                "parents": {role: {"path": str(path), "hash": f"hash of {path}"} for role, path in parents.items()},
                "model": {"hash": f"hash of {made.model_dir}", "files": {}},
                **more,
            }
        )
        return made.model_dir

    def chain(self, base: str = "m", size: int = 10, lr: float = 1e-3, seed: int = 0) -> dict[str, Path]:
        job = self.run / "sweep" / f"model={base}"
        sft = self.stage(job / "sft", {"sft.optim.lr": lr, "seed": seed}, {"base": self.base(base, size)}, seed)
        reward = self.stage(job / "reward", {"reward.epochs": 1, "seed": seed}, {"policy": sft}, seed)
        return {"policy": sft, "reward_model": reward}

    def ppo(self, job: str, parents: dict[str, Path], kl: float, ptx: float = 0.0, seed: int = 0, **more: Any) -> None:
        config = {KL_COEF: kl, PTX_COEF: ptx, "ppo.ptx.per_episode": 8.0 if ptx else 1.0, "ppo.seed": seed, "seed": 0}
        self.stage(self.run / "sweep" / job / "ppo", config, parents, seed, **more)


@pytest.fixture
def runs(tmp_path: Path) -> Runs:
    return Runs(tmp_path)


def test_coefficients_are_settings_and_seeds_are_their_members(runs: Runs) -> None:
    parents = runs.chain()
    for kl in (0.5, 0.0, 0.1):
        for seed in (0, 1):
            runs.ppo(f"ppo.kl.coef={kl},ppo.seed={seed}", parents, kl, seed=seed)
    found = gather([runs.run])
    assert [(setting.kl_coef, len(setting.policies)) for setting in found.settings] == [(0.0, 2), (0.1, 2), (0.5, 2)]
    assert [setting.label(base=False) for setting in found.settings] == ["ppo KL 0", "ppo KL 0.1", "ppo KL 0.5"]
    assert found.settings[0].label(base=True) == "m ppo KL 0"
    assert [[setting.kl_coef for setting in curve] for curve in found.curves(KL_COEF)] == [[0.0, 0.1, 0.5]]
    assert found.curves(PTX_COEF) == []
    assert found.policies[0].reference == parents["policy"]
    assert found.policies[0].base.name == "m"


def test_sizes_are_bases_and_what_goes_with_them_is_no_setting(runs: Runs) -> None:
    for base, size, lr in (("large", 90, 1e-4), ("small", 10, 1e-3)):
        parents = runs.chain(base, size, lr)
        for ptx in (0.0, 27.8):
            runs.ppo(f"model={base},ppo.ptx.coef={ptx}", parents, 0.2, ptx)
    found = gather([runs.run])
    assert list(found.bases) == ["small", "large"]
    assert [setting.label(base=True) for setting in found.settings] == [
        *("large ppo ptx 0", "large ppo-ptx ptx 27.8", "small ppo ptx 0", "small ppo-ptx ptx 27.8")
    ]
    curves = found.curves(PTX_COEF)
    assert [[(s.base, s.method) for s in curve] for curve in curves] == [
        [("large", "ppo"), ("large", "ppo-ptx")],
        [("small", "ppo"), ("small", "ppo-ptx")],
    ]
    assert found.curves(KL_COEF) == []


def test_what_two_sweeps_trained_alike_counts_once(runs: Runs) -> None:
    parents = runs.chain()
    runs.ppo("ppo.kl.coef=0.2,ppo.seed=0", parents, 0.2)
    runs.ppo("ppo.kl.coef=0.5,ppo.seed=0", parents, 0.5)
    runs.ppo("ppo.ptx.coef=0,ppo.seed=0", parents, 0.2)
    found = gather([runs.run])
    assert [(setting.kl_coef, [p.job for p in setting.policies]) for setting in found.settings] == [
        (0.2, ["ppo.kl.coef=0.2,ppo.seed=0"]),
        (0.5, ["ppo.kl.coef=0.5,ppo.seed=0"]),
    ]


def test_kl_curves_with_and_without_ptx_are_two(runs: Runs) -> None:
    parents = runs.chain()
    for kl in (0.1, 0.5):
        for ptx in (0.0, 27.8):
            runs.ppo(f"{kl},{ptx}", parents, kl, ptx)
    found = gather([runs.run])
    assert [[s.label(base=False) for s in curve] for curve in found.curves(KL_COEF)] == [
        ["ppo KL 0.1, ptx 0", "ppo KL 0.5, ptx 0"],
        ["ppo-ptx KL 0.1, ptx 27.8", "ppo-ptx KL 0.5, ptx 27.8"],
    ]
    assert len(found.curves(PTX_COEF)) == 2


def test_a_seed_of_the_whole_chain_is_a_member_of_its_setting(runs: Runs) -> None:
    base = runs.base("m")
    for seed in (1, 2):
        sft = runs.stage(runs.run / "sweep" / f"seed={seed}" / "sft", {"seed": seed}, {"base": base}, seed)
        runs.ppo(f"seed={seed}", {"policy": sft}, 0.2, seed=seed)
    (setting,) = gather([runs.run]).settings
    assert [policy.reference.parent.parent.name for policy in setting.policies] == ["seed=1", "seed=2"]
    assert setting.policies[0].reward_model is None
    assert setting.label(base=False) == "ppo"


def test_unfinished_jobs_are_named_and_left_out(runs: Runs) -> None:
    parents = runs.chain()
    runs.ppo("ppo.kl.coef=0.1", parents, 0.1)
    runs.ppo("ppo.kl.coef=0.2", parents, 0.2, status="failed")
    found = gather([runs.run])
    assert found.unfinished == ("ppo.kl.coef=0.2",)
    assert [policy.job for policy in found.policies] == ["ppo.kl.coef=0.1"]
    assert gather([runs.root / "nothing"]).settings == ()


def test_bases_of_one_name_are_told_apart(runs: Runs) -> None:
    for folder in ("one", "two"):
        sft = runs.stage(runs.run / folder / "sft", {}, {"base": runs.base(f"{folder}/gpt2")})
        runs.ppo(folder, {"policy": sft}, 0.2)
    names = list(gather([runs.run]).bases)
    assert names[0] == "gpt2"
    assert names[1].startswith("gpt2-")

"""The policies that a run and its sweeps trained, and what differs between them. No model is touched here."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rlhf.runtime.folder import StageFolder

_SEEDS = ("seed", "ppo.seed")
_SHORT = {"ppo.kl.coef": "KL", "ppo.ptx.coef": "ptx"}  # coefficients, as labels name them
KL_COEF, PTX_COEF = "ppo.kl.coef", "ppo.ptx.coef"


@dataclass(frozen=True)
class Policy:
    """One finished PPO stage and where it came from."""

    job: str  # "ppo" for the run's own, else the swept settings
    model: Path
    hash: str
    reference: Path  # the model it started from, which its KL is measured against
    reward_model: Path | None  # what it was trained on; None with a Python function alone
    base: Path  # the model that SFT started from
    base_hash: str
    settings: Mapping[str, Any]  # flat: what made it and its parents, seeds apart
    seeds: tuple[Any, ...]

    @property
    def method(self) -> str:
        return "ppo-ptx" if self.settings.get(PTX_COEF) else "ppo"


@dataclass(frozen=True)
class Setting:
    """Policies that differ in nothing but their seeds."""

    base: str  # a name for the model that SFT started from, one of `Gathered.bases`
    method: str  # ppo or ppo-ptx
    values: Mapping[str, Any]  # of the keys in which settings differ
    policies: tuple[Policy, ...]  # one a seed

    @property
    def kl_coef(self) -> float | None:
        return _number(self.policies[0].settings.get(KL_COEF))

    @property
    def ptx_coef(self) -> float | None:
        return _number(self.policies[0].settings.get(PTX_COEF))

    def label(self, *, base: bool) -> str:
        """Such as "ppo KL 0.2" or, with its base, "sandbox-m ppo-ptx KL 0.2, ptx 27.8"."""
        words = [
            f"{_SHORT.get(key, key + '=')} {_show(value)}".replace("= ", "=") for key, value in self.values.items()
        ]
        return " ".join([*([self.base] if base else []), self.method, ", ".join(words)]).strip()


@dataclass(frozen=True)
class Gathered:
    """Every finished policy of the runs, by setting."""

    settings: tuple[Setting, ...]
    bases: Mapping[str, Path]  # by name, smallest weights file first
    unfinished: tuple[str, ...]  # jobs whose PPO began and is not complete

    @property
    def policies(self) -> list[Policy]:
        return [policy for setting in self.settings for policy in setting.policies]

    def trained_on(self, reward_model: Path | None) -> bool:
        """Whether any policy was trained on this very reward model."""
        return reward_model is not None and any(policy.reward_model == reward_model for policy in self.policies)

    def curves(self, along: str) -> list[tuple[Setting, ...]]:
        """Settings that differ in `along` alone, in its order, two or more of them each."""
        groups: dict[tuple[Any, ...], list[Setting]] = {}
        for setting in self.settings:
            others = tuple((key, str(value)) for key, value in setting.values.items() if key != along)
            # With a coefficient of 0 a method has another name, and it is the curve's first point.
            method = "" if along == PTX_COEF else setting.method
            groups.setdefault((setting.base, method, others), []).append(setting)
        ordered = [sorted(group, key=lambda s: _number(s.values.get(along)) or 0.0) for group in groups.values()]
        return [tuple(group) for group in ordered if len(group) > 1 and all(along in s.values for s in group)]


def gather(runs: Sequence[Path]) -> Gathered:
    """What lies in the runs' folders. Raises UserError for a manifest that cannot be read."""
    found = []
    unfinished = []
    for run in runs:
        for folder in [StageFolder(run / "ppo"), *(StageFolder(job / "ppo") for job in sorted(run.glob("sweep/*")))]:
            if folder.manifest is None:
                continue
            job = folder.path.parent.name if folder.path.parent.parent.name == "sweep" else "ppo"
            if not folder.complete or not folder.model_dir.is_dir():
                unfinished.append(job if len(runs) == 1 else f"{run}: {job}")
                continue
            found.append(_policy(folder, job))
    bases = _names({policy.base_hash: policy.base for policy in found})
    return Gathered(tuple(_by_setting(found, bases)), _by_size(found, bases), tuple(unfinished))


def _policy(folder: StageFolder, job: str) -> Policy:
    manifest = folder.manifest or {}
    parents = manifest["parents"]
    reference = Path(parents["policy"]["path"])
    sft = StageFolder(reference.parent).manifest or {}
    base = sft.get("parents", {}).get("base") or parents["policy"]
    reward = parents.get("reward_model")
    rewards = StageFolder(Path(reward["path"]).parent).manifest or {} if reward else {}
    settings: dict[str, Any] = {}
    for made, node in ((sft, "sft."), (rewards, "reward.")):
        settings |= {key: value for key, value in made.get("config", {}).items() if key.startswith(node)}
    settings |= {key: value for key, value in manifest["config"].items() if key not in _SEEDS}
    if not settings.get(PTX_COEF):  # then nothing else about it was read
        settings = {key: value for key, value in settings.items() if key == PTX_COEF or not key.startswith("ppo.ptx.")}
    return Policy(
        job=job,
        model=folder.model_dir,
        hash=manifest["model"]["hash"],
        reference=reference,
        reward_model=Path(reward["path"]) if reward else None,
        base=Path(base["path"]),
        base_hash=base["hash"],
        settings=settings,
        seeds=(manifest.get("seed"), sft.get("seed")),
    )


def _names(bases: Mapping[str, Path]) -> dict[str, str]:
    """A name for each base by its hash: its folder's, or the run's whose pretrain stage made it; told apart by hash."""
    names: dict[str, str] = {}
    for digest, path in bases.items():
        own = path.parent.parent.name if path.name == "model" and path.parent.name == "pretrain" else path.name
        taken = own in names.values()
        names[digest] = f"{own}-{digest[:6]}" if taken else own
    return names


def _by_size(policies: Iterable[Policy], names: Mapping[str, str]) -> dict[str, Path]:
    paths = {names[policy.base_hash]: policy.base for policy in policies}
    return dict(sorted(paths.items(), key=lambda item: (_bytes(item[1]), item[0])))


def _bytes(model: Path) -> int:
    return sum(file.stat().st_size for file in model.glob("*.safetensors")) if model.is_dir() else 0


def _by_setting(policies: Sequence[Policy], names: Mapping[str, str]) -> list[Setting]:
    keys = [key for key in dict.fromkeys(key for p in policies for key in p.settings) if _differs(key, policies)]
    # What goes with the base, such as its learning rates, is said by its name.
    bases = [[p for p in policies if p.base_hash == base] for base in dict.fromkeys(p.base_hash for p in policies)]
    keys = [key for key in keys if any(_differs(key, members) for members in bases)]
    groups: dict[tuple[Any, ...], dict[tuple[Any, ...], Policy]] = {}
    for policy in policies:
        shown = tuple((key, str(policy.settings[key])) for key in keys if key in policy.settings)
        # Two sweeps may have trained the same policy.
        groups.setdefault((names[policy.base_hash], shown), {}).setdefault(policy.seeds, policy)
    settings = []
    for (base, _), by_seed in groups.items():
        members = tuple(by_seed.values())
        values = {key: members[0].settings[key] for key in keys if key in members[0].settings}
        settings.append(Setting(base, members[0].method, values, members))
    return sorted(settings, key=lambda s: (s.base, s.method, [(_number(v) or 0.0, str(v)) for v in s.values.values()]))


def _differs(key: str, policies: Sequence[Policy]) -> bool:
    """Whether the policies that have the key differ in it: one that only ptx reads is no matter of the others."""
    return len({str(policy.settings[key]) for policy in policies if key in policy.settings}) > 1


def _number(value: Any) -> float | None:
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _show(value: Any) -> str:
    return f"{value:g}" if isinstance(value, float) else str(value)

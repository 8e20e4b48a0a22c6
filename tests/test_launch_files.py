"""What can be asked of launch/ without a cluster: syntax, the fields of a PyTorchJob, Slurm's script with stand-ins."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from rlhf.cli.compose import expand, normalise
from rlhf.cli.main import _parse

LAUNCH = Path(__file__).resolve().parents[1] / "launch"
SCRIPTS = sorted([*LAUNCH.glob("*.sh"), *LAUNCH.glob("*.sbatch")])
SRUN = """#!/usr/bin/env bash
shift  # --kill-on-bad-exit=1
for task in $(seq 0 $((SLURM_NTASKS - 1))); do
    SLURM_PROCID=$task SLURM_LOCALID=$task "$@" &
done
wait -n && wait -n
"""


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_scripts_are_bash_that_parses_and_can_be_run(script: Path) -> None:
    assert subprocess.run(["bash", "-n", script], capture_output=True).returncode == 0
    assert os.access(script, os.X_OK)
    assert "set -euo pipefail" in script.read_text()
    shellcheck = shutil.which("shellcheck", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}")
    if shellcheck is not None:
        checked = subprocess.run([shellcheck, script], capture_output=True, text=True)
        assert checked.returncode == 0, checked.stdout


def test_every_file_is_in_the_readme() -> None:
    page = (LAUNCH / "README.md").read_text()
    assert all(f"`{path.name}`" in page for path in LAUNCH.iterdir() if path.name != "README.md")


def test_the_kubernetes_job_has_what_the_operator_reads_and_settings_that_exist() -> None:
    job = yaml.safe_load((LAUNCH / "kubernetes.yaml").read_text())
    assert (job["apiVersion"], job["kind"]) == ("kubeflow.org/v1", "PyTorchJob")
    assert set(job["spec"]) <= {"nprocPerNode", "runPolicy", "pytorchReplicaSpecs", "elasticPolicy"}
    replicas = job["spec"]["pytorchReplicaSpecs"]
    assert set(replicas) == {"Master", "Worker"}
    assert replicas["Master"]["replicas"] == 1
    for replica in replicas.values():
        assert replica["restartPolicy"] in ("Always", "OnFailure", "Never", "ExitCode")
        (container,) = replica["template"]["spec"]["containers"]
        assert container["name"] == "pytorch"
        assert str(container["resources"]["limits"]["nvidia.com/gpu"]) == job["spec"]["nprocPerNode"]
        words = container["args"][container["args"].index("rlhf") + 1 :]
        volumes = {volume["name"] for volume in replica["template"]["spec"]["volumes"]}
        assert {mount["name"] for mount in container["volumeMounts"]} <= volumes
    (composed,) = expand(_parse([normalise(word) for word in words]))
    assert composed.config.zero.stage == 2


@pytest.mark.slow
def test_slurm_s_script_starts_a_rank_a_task(tmp_path: Path) -> None:
    for name, text in (("srun", SRUN), ("scontrol", "#!/usr/bin/env bash\necho 127.0.0.1\necho 127.0.0.2\n")):
        (tmp_path / name).write_text(text)
        (tmp_path / name).chmod(0o755)
    environment = {
        **os.environ,
        "PATH": f"{tmp_path}:{Path(sys.executable).parent}:{os.environ['PATH']}",
        "PYTHONPATH": str(LAUNCH.parent),
        "SLURM_JOB_NODELIST": "node[1-2]",
        "SLURM_JOB_ID": "12345",
        "SLURM_NTASKS": "2",
        "SLURM_CPUS_PER_TASK": "1",
    }
    words = ["+debug=tiny", "model=sandbox-s", "stage=sft", "zero=1", "launch.device=cpu", "run.name=slurm"]
    done = subprocess.run(
        [LAUNCH / "slurm.sbatch", *words], cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.returncode == 0, done.stdout + done.stderr
    manifest = json.loads((tmp_path / "runs/slurm/sft/manifest.json").read_text())
    assert manifest["status"] == "complete"
    assert manifest["hardware"]["processes"] == 2

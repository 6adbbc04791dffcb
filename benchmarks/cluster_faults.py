"""What is lost when a cluster's machines, links and services die? Run by `make test-cluster`, as root.

Three machines (network namespaces) run Ray with token authentication, a head without work of its own, with
Redis behind it, and two workers; a fourth runs PostgreSQL, MLflow's server and an object store. Every row
submits a study from outside through the job API, does its harm in the middle, and compares
results.csv with that of a local run, byte by byte; MLflow must hold each trial and run once, and the study
is sent again by hand only where its disk is gone or full. Exits with 1 where any of this fails, with 2 where
something that it needs is not installed.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml

from benchmarks.common import emit
from benchmarks.hosts import Host, network, sh
from benchmarks.services import BUCKET, Services, missing, until

SHARED_MB = 1500  # of the storage that all machines mount
VENV = Path(sys.executable).parent
ROWS: dict[str, Callable[[Stack, Path], None]] = {}
BY_HAND = ("disk full", "run folder lost")  # else `tapray submit --wait` sees a job to its end by itself


class Stack:
    """The machines, and what runs on them."""

    def __init__(self, scratch: Path) -> None:
        self.shared = scratch / "shared"
        self.services = Services(Host("services", 2, scratch))
        self.head = Host("head", 10, scratch)
        self.workers = [Host("one", 11, scratch), Host("two", 12, scratch)]
        token = scratch / "token"
        token.write_text(os.urandom(24).hex())
        token.chmod(0o600)
        self.token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(token)}
        self.address = f"http://{self.head.address}:8265"

    def start(self) -> None:
        self.shared.mkdir()
        sh(f"mount -t tmpfs -o size={SHARED_MB}m tmpfs {self.shared}")
        self.services.start()
        self.start_head()
        for worker in self.workers:
            self.start_worker(worker)
        until(lambda: self.machines() == 3, "the cluster", 180)

    def _env(self) -> dict[str, str]:
        path = f"{VENV}:{os.environ['PATH']}"
        quiet = {"RAY_USAGE_STATS_ENABLED": "0", "RAY_health_check_period_ms": "2000"}
        return {**self.services.mlflow, **self.services.s3, **self.token, **quiet, "PATH": path}

    def start_head(self) -> None:
        redis = f"{self.services.host.address}:6379"
        env = {**self._env(), "RAY_REDIS_ADDRESS": redis, "RAY_external_storage_namespace": "tapray"}
        command = f"{VENV}/ray start --head --block --node-ip-address={self.head.address} --port=6379"
        command += " --num-cpus=0"
        command += f" --dashboard-host={self.head.address} --object-store-memory=200000000"
        env["REDIS_PASSWORD"] = self.services.secrets["redis"]
        self.head.start(f"bash -c '{command} --redis-password=$REDIS_PASSWORD'", env, "ray.log")
        until(self.answers, "the head", 120)

    def start_worker(self, worker: Host) -> None:
        command = f"{VENV}/ray start --block --address={self.head.address}:6379 --num-cpus=2"
        command += f" --node-ip-address={worker.address} --object-store-memory=400000000"
        worker.start(command, self._env(), "ray.log")

    def answers(self) -> bool:
        return self.tapray("jobs", "list").returncode == 0

    def machines(self) -> int:
        """How many are alive."""
        done = subprocess.run(
            [f"{VENV}/ray", "list", "nodes", "--address", self.address, "--format", "json"],
            env={**os.environ, **self.token},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return sum(node["state"] == "ALIVE" for node in json.loads(done.stdout))
        except ValueError:
            return 0

    def tapray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command from outside, to its end."""
        command = [sys.executable, "-m", "tapray", *words, "--address", self.address]
        env = {**os.environ, **self.token}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def submit(self, study: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tapray", "submit", str(study), "--out", str(out), *options]
        command += ["--address", self.address, "--progress", "json"]
        with out.with_suffix(".log").open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **self.token}, stdout=log, stderr=log)

    def training(self) -> Host:
        """The machine that trains."""
        until(lambda: any(worker.runs("RayTrainWorker") for worker in self.workers), "training", 240)
        return next(worker for worker in self.workers if worker.runs("RayTrainWorker"))

    def again(self) -> None:
        """Everything of Ray anew."""
        for host in (*self.workers, self.head):
            host.mend()
            host.kill()
        self.start_head()
        for worker in self.workers:
            self.start_worker(worker)
        until(lambda: self.machines() == 3, "the cluster", 180)

    def back(self, worker: Host) -> None:
        """A machine that was killed or cut off starts again."""
        worker.kill()
        self.start_worker(worker)


def stepped(out: Path, step: int = 20) -> None:
    """Waits until pretraining has come so far."""
    log = out / "pretrain" / "log.jsonl"
    until(lambda: log.exists() and f'"step": {step}' in log.read_text(), f"step {step}", 300)


def searching(out: Path) -> None:
    """Waits until the study is under way."""
    until(lambda: len([*(out / "study").glob("*s-*.json")]) > 1, "the study", 400)


def row(what: Callable[[Stack, Path], None]) -> Callable[[Stack, Path], None]:
    ROWS[what.__name__.replace("_", " ")] = what
    return what


@row
def undisturbed(stack: Stack, out: Path) -> None:
    """Nothing happens."""


@row
def node_that_trains_killed(stack: Stack, out: Path) -> None:
    stepped(out)
    lost = stack.training()
    lost.kill()
    stack.start_worker(lost)


@row
def link_of_the_node_that_trains_cut(stack: Stack, out: Path) -> None:
    stepped(out)
    lost = stack.training()
    lost.cut()
    until(lambda: stack.machines() == 2, "the loss", 120)
    lost.mend()
    stack.back(lost)


@row
def head_killed(stack: Stack, out: Path) -> None:
    searching(out)
    stack.head.kill()
    time.sleep(5)
    stack.start_head()


@row
def mlflow_restarted(stack: Stack, out: Path) -> None:
    searching(out)
    for part in ("mlflow server", "mlflow.server"):  # and not the database's processes, which name it too
        stack.services.host.kill(part)
    time.sleep(10)
    stack.services.start_mlflow()


@row
def disk_full(stack: Stack, out: Path) -> None:
    """Until the job has ended; then it is submitted again."""
    stepped(out)
    filler = stack.shared / "filler"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(bytes(1 << 16))
        except OSError:
            pass
    listed = lambda: stack.tapray("jobs", "list").stdout  # noqa: E731
    until(lambda: "RUNNING" not in listed() and "PENDING" not in listed(), "the end of the job", 300)
    filler.unlink()


@row
def run_folder_lost(stack: Stack, out: Path) -> None:
    """The job is stopped and its disk is lost; the mirror in the object store has all that it had."""
    searching(out)
    name = stack.tapray("jobs", "list", "--progress", "json").stdout
    running = next(cells[0] for cells in json.loads(name)["rows"] if cells[1] == "RUNNING")
    stack.tapray("jobs", "stop", running)
    until(lambda: stack.tapray("jobs", "status", running).stdout.strip() == "STOPPED", "the stop", 120)
    shutil.rmtree(out)


def longer(study: Path) -> dict[str, Any]:
    """A study with pretraining long enough to be disturbed."""
    given: dict[str, Any] = yaml.safe_load(study.read_text())
    pretrain = given["pretrain"]
    steps = max(pretrain["steps_per_epoch"] * pretrain["epochs"], 60)
    if steps == 60:
        given["pretrain"] = {**pretrain, "steps_per_epoch": 30, "epochs": 2, "checkpoint_every": 10}
    return given


def results(out: Path) -> bytes:
    return (out / "report" / "results.csv").read_bytes()


def logged(stack: Stack, experiment: str) -> dict[str, int]:
    """How many trials and runs MLflow holds as finished, and how many twice."""
    os.environ.update(stack.services.mlflow)
    from mlflow import MlflowClient

    client = MlflowClient(stack.services.mlflow["MLFLOW_TRACKING_URI"])
    found = client.get_experiment_by_name(experiment)
    if found is None:
        return {"logged": 0, "doubled": 0}
    runs = client.search_runs([found.experiment_id], "attributes.status = 'FINISHED'", max_results=5000)
    names = [run.info.run_name for run in runs if run.info.run_name.startswith(("trial ", "run "))]
    return {"logged": len(names), "doubled": len(names) - len(set(names))}


def tried(stack: Stack, name: str, base: Path, expected: bytes) -> dict[str, Any]:
    out = stack.shared / name.replace(" ", "_")
    study = out.with_suffix(".yaml")
    own = {
        "tracking": {"experiment": name},
        "mirror": f"s3://{BUCKET}/{out.name}",
        "cache": {"folder": str(out.with_suffix(".cache"))},  # else the first row would pretrain for all
        "ray": {"train_workers": 1, "max_failures": 5},  # machines die more often here than elsewhere
    }
    study.write_text(yaml.safe_dump({**longer(base), **own}))
    start = time.monotonic()
    job = stack.submit(study, out, "--wait")
    try:
        ROWS[name](stack, out)
    except RuntimeError:
        job.kill()
        raise
    status, again = job.wait(900), 0
    while status and again < 2:
        again += 1
        status = stack.submit(study, out, "--wait").wait(900)
    seconds = round(time.monotonic() - start, 1)
    if status:
        raise RuntimeError(out.with_suffix(".log").read_text()[-600:])
    same = results(out) == expected
    return {"seconds": seconds, "submitted_again": again, "same_results": same, **logged(stack, name)}


def local(base: Path, scratch: Path) -> tuple[bytes, int]:
    """The results of a run without a cluster, and how many trials and runs there are."""
    out = scratch / "local" / "run"
    study = longer(base)
    path = scratch / "local.yaml"
    path.write_text(yaml.safe_dump({**study, "ray": {"train_workers": 1}}))
    command = [sys.executable, "-m", "tapray", "run", str(path), "--out", str(out), "--progress", "quiet"]
    subprocess.run(command, check=True)
    count = sum(len(json.loads(file.read_text())) for file in (out / "study").glob("*s-*.json"))
    return results(out), count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--rows", nargs="+", default=[*ROWS], choices=[*ROWS])
    parser.add_argument("--study", type=Path, default=Path("studies/tiny.yaml"), help="one that simulates")
    given = parser.parse_args()
    if fault := missing():
        print(f"test-cluster: {fault}", file=sys.stderr)
        sys.exit(2)
    for name in ("PYTHONDONTWRITEBYTECODE", "RAY_ADDRESS", "MLFLOW_TRACKING_URI"):
        os.environ.pop(name, None)
    rows, start = dict[str, Any](), time.monotonic()
    with tempfile.TemporaryDirectory(dir="/var/tmp") as folder, network():
        scratch = Path(folder)
        scratch.chmod(0o755)
        expected, count = local(given.study, scratch)
        stack = Stack(scratch)
        try:
            stack.start()
            for name in given.rows:
                try:
                    rows[name] = tried(stack, name, given.study, expected)
                except RuntimeError as error:
                    rows[name] = {"failed": str(error), "same_results": False}
                    stack.again()
                print(name, json.dumps(rows[name]), file=sys.stderr, flush=True)
        finally:
            for host in (*stack.workers, stack.head, stack.services.host):
                host.kill()
            if stack.shared.is_mount():
                sh(f"umount -l {stack.shared}")
    total = {"trials_and_runs": count, "total_s": round(time.monotonic() - start)}
    emit("cluster_faults", {**total, **rows})
    kept = [each.get("same_results") and each.get("logged") == count for each in rows.values()]
    alone = [name in BY_HAND or not each.get("submitted_again") for name, each in rows.items()]
    sys.exit(not all([*kept, *alone]))


if __name__ == "__main__":
    main()

"""A Ray cluster of network namespaces with services beside it, and what of its secrets it leaves behind."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from benchmarks.hosts import Host, sh
from benchmarks.services import Services, until

SHARED_MB = 1500  # of the storage that all machines mount
VENV = Path(sys.executable).parent


class Stack:
    """The machines, and what runs on them."""

    def __init__(self, scratch: Path) -> None:
        self.shared, self._logs = scratch / "shared", scratch / "logs"
        self._logs.mkdir()
        self.services = Services(Host("services", 2, scratch))
        self.head = Host("head", 10, scratch)
        self.workers = [Host("one", 11, scratch), Host("two", 12, scratch)]
        self.secrets = {**self.services.secrets, "token": os.urandom(24).hex()}
        token = scratch / "token"
        token.write_text(self.secrets["token"])
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

    def machines(self, state: str = "ALIVE") -> int:
        """How many are alive, or were and are "DEAD"."""
        done = subprocess.run(
            [f"{VENV}/ray", "list", "nodes", "--address", self.address, "--format", "json"],
            env={**os.environ, **self.token},
            capture_output=True,
            text=True,
            check=False,
        )
        try:
            return sum(node["state"] == state for node in json.loads(done.stdout))
        except ValueError:
            return 0

    def tapray(self, *words: str) -> subprocess.CompletedProcess[str]:
        """A command from outside, to its end."""
        command = [sys.executable, "-m", "tapray", *words, "--address", self.address]
        env = {**os.environ, **self.token}
        return subprocess.run(command, env=env, capture_output=True, text=True, check=False)

    def jobs(self, out: Path) -> list[tuple[str, str]]:
        """Names and statuses of the jobs of a run folder, the latest first; none while nothing answers."""
        try:
            rows = json.loads(self.tapray("jobs", "list", "--progress", "json").stdout)["rows"]
        except ValueError:
            return []
        return [(cells[0], cells[1]) for cells in rows if cells[3] == str(out)]

    def log(self, out: Path) -> Path:
        """What is told of a run folder's jobs where they are submitted; not on storage that a row fills."""
        return self._logs / f"{out.name}.log"

    def submit(self, study: Path, out: Path, *options: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-m", "tapray", "submit", str(study), "--out", str(out), *options]
        command += ["--address", self.address, "--progress", "json"]
        with self.log(out).open("ab") as log:
            return subprocess.Popen(command, env={**os.environ, **self.token}, stdout=log, stderr=log)

    def dies(self, worker: Host) -> None:
        """A machine is killed, and the cluster has noticed."""
        before = self.machines("DEAD")
        worker.kill()
        until(lambda: self.machines("DEAD") > before, "the loss", 120)

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

    def leaks(self) -> Iterator[str]:
        """Which secrets lie open in what jobs, Ray, the services' logs and MLflow keep, and where."""
        token = Path(self.token["RAY_AUTH_TOKEN_PATH"])
        if not [*self._holding(token)]:
            raise RuntimeError("secrets are not found where they are")
        rays = (self.head, *self.workers)
        stored = self.services.host.own / "swift" / "disks"  # artifacts and mirrors
        for host in (*rays, self.services.host):
            yield from (leak for path in host.own.glob("*.log") for leak in self._holding(path))
        for top in (self.shared, self._logs, stored, *(host.own / "tmp" for host in rays)):
            for folder, _, names in os.walk(top):
                yield from (leak for name in names for leak in self._holding(Path(folder) / name))
        kept = json.dumps(self.services.records())
        yield from (f"{name} in MLflow" for name, word in self.secrets.items() if word in kept)

    def _holding(self, path: Path) -> Iterator[str]:
        held = b""
        with suppress(OSError):  # it went while Ray goes on
            held = path.read_bytes() if path.is_file() and not path.is_symlink() else b""
        yield from (f"{name} in {path}" for name, word in self.secrets.items() if word.encode() in held)

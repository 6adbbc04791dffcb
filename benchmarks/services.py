"""What lies beside a cluster, for real: PostgreSQL, Redis, OpenStack Swift speaking S3, MLflow's server."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import requests

from benchmarks.hosts import Host
from tapray.tracking import IDENTITY

PACKAGES = "iproute2 postgresql redis-server swift-proxy swift-account swift-container swift-object memcached"
BUCKET, KEY = "tapray", "tapray:admin"
_POSTGRES = next(iter(sorted(Path("/usr/lib/postgresql").glob("*/bin"))), Path("/usr/lib/postgresql/bin"))
_COMMANDS = ("ip", "redis-server", "swift-proxy-server", "swift-object-server", "memcached", "setpriv")
PORTS = {"redis": 6379, "postgres": 5432, "objects": 8080, "mlflow": 5000}


def missing() -> str:
    """What keeps the services from running here, "" for nothing."""
    if os.geteuid():
        return "network namespaces need root"
    there = all(map(shutil.which, _COMMANDS)) and (_POSTGRES / "initdb").exists()
    return "" if there else f"install: apt-get install {PACKAGES}"


# A HEAD of what is not there is answered by this Swift with the end of a chunked body, which clients refuse.
_HEAD = """
def factory(conf, **local):
    def made(app):
        def filtered(env, start_response):
            if env["REQUEST_METHOD"] != "HEAD":
                return app(env, start_response)

            def begin(status, headers, exc_info=None):
                known = {key.lower() for key, _ in headers}
                headers = headers if "content-length" in known else [*headers, ("Content-Length", "0")]
                return start_response(status, headers, exc_info)

            for _ in app(env, begin):
                pass
            return []

        return filtered

    return made
"""


class Services:
    """All of them on one host, with secrets that are made anew each time."""

    def __init__(self, host: Host) -> None:
        self.host = host
        names = ("redis", "postgres", "objects", "mlflow")
        self.secrets = {name: secrets.token_urlsafe(24) for name in names}
        self.s3 = {
            "AWS_ENDPOINT_URL": f"http://{host.address}:{PORTS['objects']}",
            "AWS_DEFAULT_REGION": "us-east-1",
            "AWS_ACCESS_KEY_ID": KEY,
            "AWS_SECRET_ACCESS_KEY": self.secrets["objects"],
            "AWS_REQUEST_CHECKSUM_CALCULATION": "when_required",  # Swift knows no trailing checksums
            "AWS_RESPONSE_CHECKSUM_VALIDATION": "when_required",
        }
        self.mlflow = {
            "MLFLOW_TRACKING_URI": f"http://{host.address}:{PORTS['mlflow']}",
            "MLFLOW_TRACKING_USERNAME": "admin",
            "MLFLOW_TRACKING_PASSWORD": self.secrets["mlflow"],
        }

    def start(self) -> None:
        self._redis()
        self._postgres()
        self._objects()
        self.start_mlflow()

    def _redis(self) -> None:
        settings = self.host.own / "redis.conf"
        settings.write_text(f"bind {self.host.address}\nrequirepass {self.secrets['redis']}\nsave ''\n")
        self.host.start(f"redis-server {settings}", {}, "redis.log")

    def _postgres(self) -> None:
        data, word = self.host.own / "postgres", self.host.own / "postgres-password"
        data.mkdir()
        word.write_text(self.secrets["postgres"])
        shutil.chown(data, "postgres", "postgres")
        shutil.chown(word, "postgres", "postgres")
        run = f"{_POSTGRES}/initdb --pgdata {data} --username mlflow --pwfile {word} --no-sync"
        run += " --auth scram-sha-256"
        self.host.run(run, {}, "postgres.log", "postgres")
        with (data / "pg_hba.conf").open("a") as file:
            file.write("host all mlflow 10.77.0.0/24 scram-sha-256\n")
        options = f"-c listen_addresses={self.host.address} -c unix_socket_directories={data}"
        self.host.start(f"{_POSTGRES}/postgres -D {data} {options}", {}, "postgres.log", "postgres")
        ready = f"{_POSTGRES}/pg_isready --host {self.host.address}"
        until(lambda: self._ok(ready), "PostgreSQL")
        create = f"{_POSTGRES}/createdb --host {self.host.address} --username mlflow mlflow"
        self.host.run(create, {"PGPASSWORD": self.secrets["postgres"]}, "postgres.log")

    def _ok(self, command: str) -> bool:
        try:
            self.host.run(command, {}, "postgres.log")
        except RuntimeError:
            return False
        return True

    def _objects(self) -> None:
        folder = self.host.own / "swift"
        (folder / "disks" / "d1").mkdir(parents=True)
        parts = {"object": 6200, "container": 6201, "account": 6202}
        (folder / "swift.conf").write_text("[swift-hash]\nswift_hash_path_suffix = tapray\n")
        for name, port in parts.items():
            ring = ["swift-ring-builder", f"{folder}/{name}.builder"]
            device = f"r1z1-{self.host.address}:{port}/d1"
            for step in (["create", "4", "1", "1"], ["add", device, "1"], ["rebalance"]):
                subprocess.run([*ring, *step], check=True, capture_output=True, cwd=folder)
            settings = folder / f"{name}.conf"
            settings.write_text(
                f"[DEFAULT]\nbind_ip = {self.host.address}\nbind_port = {port}\nuser = root\nworkers = 0\n"
                f"swift_dir = {folder}\ndevices = {folder}/disks\nmount_check = false\n"
                f"[pipeline:main]\npipeline = {name}-server\n[app:{name}-server]\nuse = egg:swift#{name}\n"
            )
            self.host.start(f"swift-{name}-server {settings}", {}, f"swift-{name}.log")
        self.host.start(f"memcached -l {self.host.address} -u nobody", {}, "memcached.log")
        proxy = folder / "proxy.conf"
        proxy.write_text(
            f"[DEFAULT]\nbind_ip = {self.host.address}\nbind_port = {PORTS['objects']}\nuser = root\n"
            f"workers = 2\nswift_dir = {folder}\n[pipeline:main]\n"
            "pipeline = head catch_errors cache s3api tempauth slo proxy-server\n"
            "[filter:head]\npaste.filter_factory = tapray_head:factory\n"
            "[app:proxy-server]\nuse = egg:swift#proxy\nallow_account_management = true\n"
            "account_autocreate = true\n[filter:tempauth]\nuse = egg:swift#tempauth\n"
            f"user_tapray_admin = {self.secrets['objects']} .admin\n"
            "[filter:s3api]\nuse = egg:swift#s3api\nlocation = us-east-1\n"
            "[filter:slo]\nuse = egg:swift#slo\n[filter:catch_errors]\nuse = egg:swift#catch_errors\n"
            f"[filter:cache]\nuse = egg:swift#memcache\nmemcache_servers = {self.host.address}:11211\n"
        )
        proxy.chmod(0o600)
        (folder / "tapray_head.py").write_text(_HEAD)
        self.host.start(f"swift-proxy-server {proxy}", {"PYTHONPATH": str(folder)}, "swift-proxy.log")
        until(self._bucket, "the object store")

    def _bucket(self) -> bool:
        import boto3

        try:
            client = boto3.client(
                "s3",
                endpoint_url=self.s3["AWS_ENDPOINT_URL"],
                aws_access_key_id=KEY,
                aws_secret_access_key=self.secrets["objects"],
                region_name="us-east-1",
            )
            client.create_bucket(Bucket=BUCKET)
        except Exception:
            return False
        return True

    def start_mlflow(self) -> None:
        """The server of the image `mlflow`, from this environment."""
        env = {
            **self.s3,
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(self.host.own),
            "MLFLOW_PORT": str(PORTS["mlflow"]),
            "MLFLOW_SERVER_ALLOWED_HOSTS": f"{self.host.address}:{PORTS['mlflow']}",
            "MLFLOW_ARTIFACTS": f"s3://{BUCKET}/mlflow",
            "MLFLOW_DATABASE_HOST": self.host.address,
            "MLFLOW_DATABASE_PASSWORD": self.secrets["postgres"],
            "MLFLOW_AUTH_ADMIN_PASSWORD": self.secrets["mlflow"],
            "MLFLOW_FLASK_SERVER_SECRET_KEY": self.secrets["mlflow"],
        }
        script = Path(__file__).parents[1] / "docker" / "serve-mlflow"
        self._mlflow = self.host.start(f"bash {script}", env, "mlflow.log")
        until(self.mlflow_answers, "MLflow", 180)

    def kill_mlflow(self) -> None:
        """Ends all its processes; its workers, whose command lines do not tell, would go on without it."""
        self._mlflow.kill()
        self._mlflow.wait()
        until(lambda: not self.mlflow_answers(), "MLflow's end", 20)

    def records(self, experiment: str = "") -> list[dict[str, Any]]:
        """All runs that MLflow holds, of one experiment or of all."""
        os.environ.update(self.mlflow)
        from mlflow import MlflowClient

        client = MlflowClient(self.mlflow["MLFLOW_TRACKING_URI"])
        wanted = f"name = '{experiment}'" if experiment else None
        ids = [found.experiment_id for found in client.search_experiments(filter_string=wanted)]
        return [
            {
                **{"name": run.info.run_name, "status": run.info.status, "params": run.data.params},
                **{"tags": run.data.tags, "identity": run.data.tags.get(IDENTITY, run.info.run_id)},
            }
            for run in (client.search_runs(ids, max_results=5000) if ids else ())
        ]

    def mlflow_answers(self) -> bool:
        try:
            return requests.get(f"{self.mlflow['MLFLOW_TRACKING_URI']}/health", timeout=5).ok
        except requests.RequestException:
            return False


def until(holds: Callable[[], bool], what: str, seconds: float = 90) -> None:
    """Waits until something holds; RuntimeError after so many seconds."""
    deadline = time.monotonic() + seconds
    while not holds():
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} was not there within {seconds:.0f} s")
        time.sleep(0.2)

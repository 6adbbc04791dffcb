"""What is looked at on every machine before a job starts."""

from __future__ import annotations

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from threading import Thread

import pytest

from tapray.config import JobConfig
from tapray.configfile import parse_config
from tapray.distributed import preflight as module
from tapray.distributed.cluster import GROWTH, capacity
from tapray.distributed.preflight import CLIENT, preflight, versions
from tapray.errors import UserError

pytestmark = pytest.mark.slow
NOWHERE = "http://127.0.0.1:9"  # the port discard, where nothing listens


def config(**sections: object) -> JobConfig:
    return parse_config({"simulate": {}, **sections})


def store(folder: Path) -> str:
    return f"sqlite:///{folder}/mlflow.db"


def test_a_sound_cluster(ray_cluster: None, tmp_path: Path) -> None:
    assert preflight(config(), tmp_path, store(tmp_path)) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("sections", "tracking", "match"),
    [
        ({"ray": {"train_workers": 3}, "pretrain": {"batch": 64}}, "", "3 workers need as many CPUs"),
        ({"ray": {"use_gpu": True}}, "", "need as many GPUs"),
        ({}, NOWHERE, r"machine .*: http://127.0.0.1:9: tracking store cannot be used"),
        ({"simulate": None, "movies": [{"path": "/nowhere/a.tif"}]}, "", "/nowhere/a.tif: is not there"),
        ({"study": {"inits": ["tap", "imagenet"], "imagenet": "/nowhere/r.pth"}}, "", "r.pth: is not there"),
    ],
)
def test_what_is_missing_is_one_line(
    ray_cluster: None, tmp_path: Path, sections: dict[str, object], tracking: str, match: str
) -> None:
    with pytest.raises(UserError, match=match):
        preflight(config(**sections), tmp_path, tracking or store(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.fixture
def unwell() -> Iterator[str]:
    """A server that answers, but not as MLflow that is well."""

    class Answer(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_error(503 if self.path == "/health" else 200)

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Answer)
    Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_store_that_is_not_well_is_refused(ray_cluster: None, tmp_path: Path, unwell: str) -> None:
    with pytest.raises(UserError, match=r"tracking store cannot be used \(/health answers 503\)"):
        preflight(config(), tmp_path, unwell)


def test_a_cache_that_cannot_be_written_to_is_refused(ray_cluster: None, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match=r"file/cache: cannot be written to \(Not a directory\)"):
        preflight(config(cache={"folder": str(tmp_path / "file" / "cache")}), tmp_path, store(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_cache_of_its_own_on_each_machine_is_refused(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is written there is not seen here."""
    monkeypatch.setattr(module, "_look", lambda needs, note: module.Seen("n", "10.0.0.7", []))
    with pytest.raises(
        UserError, match=r"machine 10.0.0.7: .* is not one and the same folder on every machine"
    ):
        preflight(config(), tmp_path, store(tmp_path))


def test_other_versions_are_refused(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLIENT, json.dumps({**versions(), "Ray": "2.1.0"}))
    with pytest.raises(UserError, match=r"Ray is .* there and 2.1.0 where the job comes from"):
        preflight(config(), tmp_path, store(tmp_path))
    monkeypatch.delenv(CLIENT)
    own = module._packages()
    monkeypatch.setattr(module, "_packages", lambda: {**own, "PyTorch": "1.13"})
    with pytest.raises(UserError, match=r"PyTorch is .* there and 1.13 where the job comes from"):
        preflight(config(), tmp_path, store(tmp_path))


def test_machines_that_may_be_started_count(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GROWTH, "CPU=64, GPU=4")
    assert preflight(config(), tmp_path, store(tmp_path)) == 1  # a processor is free
    many = config(ray={"use_gpu": True, "train_workers": 4})
    monkeypatch.setattr(module, "START_S", 1)
    with pytest.raises(UserError, match="no machine with a free GPU has come within 1 s"):
        preflight(many, tmp_path, store(tmp_path))
    assert preflight(many, tmp_path, store(tmp_path), trains=False) == 1
    assert list(tmp_path.iterdir()) == []
    assert (capacity("CPU"), capacity("GPU")) == (64, 4)
    with pytest.raises(UserError, match="5 workers need as many GPUs, the cluster has 4"):
        preflight(config(ray={"use_gpu": True, "train_workers": 5}), tmp_path, store(tmp_path))
    monkeypatch.delenv(GROWTH)
    assert capacity("CPU") == 2

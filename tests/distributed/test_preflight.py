"""What is looked at on every machine before a job starts."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tapray.config import JobConfig
from tapray.configfile import parse_config
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


def test_other_versions_are_refused(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CLIENT, json.dumps({**versions(), "Ray": "2.1.0"}))
    with pytest.raises(UserError, match=r"Ray is .* there and 2.1.0 where the job comes from"):
        preflight(config(), tmp_path, store(tmp_path))


def test_machines_that_may_be_started_count(
    ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(GROWTH, "CPU=64, GPU=4")
    many = config(ray={"use_gpu": True, "train_workers": 4})
    assert preflight(many, tmp_path, store(tmp_path)) == 1
    assert (capacity("CPU"), capacity("GPU")) == (64, 4)
    with pytest.raises(UserError, match="5 workers need as many GPUs, the cluster has 4"):
        preflight(config(ray={"use_gpu": True, "train_workers": 5}), tmp_path, store(tmp_path))
    monkeypatch.delenv(GROWTH)
    assert capacity("CPU") == 2

"""Who owns a run folder, what stays whole on failure, and which stages count as done."""

from __future__ import annotations

import json
import subprocess
import sys
from enum import StrEnum
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.config import CropConfig, JobConfig, RayConfig, SimulateConfig, TrackingConfig
from tapray.entries import Annotation, AnnotationKind, MovieEntry
from tapray.errors import UserError
from tapray.runfolder import RunFolder, content_hash
from tests.conftest import files

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def job(out: Path, **sections: Any) -> JobConfig:
    return JobConfig(out=out, simulate=SimulateConfig(), **sections)


def test_content_hash_sees_values_not_spelling(tmp_path: Path) -> None:
    class Kind(StrEnum):
        A = "a"

    spelt = {"kind": Kind.A, "path": Path("x/y"), "size": (1, np.int64(2)), "names": {"q", "p"}}
    plain = {"names": ["p", "q"], "size": [1, 2], "path": "x/y", "kind": "a"}
    assert content_hash(spelt) == content_hash(plain)
    assert len(content_hash(plain)) == 64
    assert content_hash(CropConfig()) == content_hash(CropConfig().model_dump())
    assert content_hash(CropConfig(size=64)) != content_hash(CropConfig())
    assert content_hash([1, 2]) != content_hash([2, 1])
    assert content_hash("1") != content_hash(1)
    with pytest.raises(TypeError):
        content_hash({"x": object()})
    with pytest.raises(ValueError, match="not JSON compliant"):
        content_hash(float("nan"))


@settings(max_examples=25)
@given(JSON)
def test_content_hash_survives_json(value: Any) -> None:
    assert content_hash(json.loads(json.dumps(value))) == content_hash(value)


def test_claim_writes_configuration_and_environment(tmp_path: Path) -> None:
    out = tmp_path / "runs" / "a"
    config = job(out, tracking=TrackingConfig(uri="postgresql://me:hush@db/x"))
    RunFolder(out).claim(config)
    there = yaml.safe_load((out / "config.yaml").read_text())
    assert there["crops"]["size"] == 48
    assert there["tracking"]["uri"] == "postgresql://***@db/x"
    there["tracking"]["uri"] = config.tracking.uri
    assert JobConfig.model_validate(there) == config
    environment = json.loads((out / "environment.json").read_text())
    assert environment["python"].startswith(f"{sys.version_info.major}.{sys.version_info.minor}")
    assert environment["cpu_count"] >= 1
    assert environment["versions"]["numpy"] == np.__version__
    assert environment["git_commit"] is None or len(environment["git_commit"]) == 40


def test_neither_passwords_nor_folders_leave_with_the_configuration(tmp_path: Path) -> None:
    notes = (Annotation(kind=AnnotationKind.EVENT_TABLE, path=tmp_path / "secret" / "events.csv"),)
    movie = MovieEntry(name="far", path="https://me:hush@host/lab/m.tif", annotations=notes)
    config = JobConfig(out=tmp_path / "a", movies=(movie,))
    folder = RunFolder(config.out)
    folder.claim(config)
    there = (config.out / "config.yaml").read_text()
    assert "https://***@host/lab/m.tif" in there
    assert "hush" not in there
    told = folder.about(config)["Configuration"]
    assert "path: m.tif" in told
    assert "path: events.csv" in told
    assert "secret" not in told


def test_the_commands_that_made_it_are_told_without_folders(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = RunFolder(tmp_path / "a")
    folder.claim(job(tmp_path / "a"))
    monkeypatch.setattr(
        sys, "argv", ["/home/me/bin/tapray", "shard", "/lab/my study.yaml", "--out=/lab/runs/a"]
    )
    for stage in ("simulate", "shard"):
        folder.mark_done(stage, "key")
    second = ["/env/tapray/__main__.py", "run", "study.yaml", "--out", "/lab/runs/a/"]
    monkeypatch.setattr(sys, "argv", second)
    told = folder.about(job(tmp_path / "a"))["Commands that made this"]
    assert told.splitlines() == ["tapray shard 'my study.yaml' --out=a", "tapray run study.yaml --out a"]


def test_claim_again_with_another_place_keeps_all_files(tmp_path: Path) -> None:
    first = RunFolder(tmp_path / "a")
    first.claim(job(tmp_path / "a"))
    first.claim(job(tmp_path / "a"))
    before = files(tmp_path)
    first.release()
    (tmp_path / "a" / ".crops.0.tapray-tmp").mkdir()  # as a killed job leaves it
    RunFolder(tmp_path / "a").claim(job(tmp_path / "b", ray=RayConfig(train_workers=7)))
    assert files(tmp_path) == before
    assert not (tmp_path / "a" / ".crops.0.tapray-tmp").exists()


def test_claim_refuses_another_configuration(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    folder.claim(job(tmp_path))
    folder.release()
    before = files(tmp_path)
    text = r"in use by another configuration \(first differing key: crops.size, 48 there and 64 here\)"
    with pytest.raises(UserError, match=text) as caught:
        RunFolder(tmp_path).claim(job(tmp_path, crops=CropConfig(size=64, jitter=2)))
    assert str(caught.value).startswith(f"{tmp_path}: ")
    assert str(caught.value).endswith("choose another out")
    (tmp_path / "config.yaml").write_text((tmp_path / "config.yaml").read_text().replace("  jitter: 6\n", ""))
    with pytest.raises(UserError, match=r"crops\.jitter, 'nothing' there and 6 here"):
        RunFolder(tmp_path).claim(job(tmp_path))
    (tmp_path / "config.yaml").write_text("- a list")
    with pytest.raises(UserError, match="is not a configuration"):
        RunFolder(tmp_path).claim(job(tmp_path))
    assert files(tmp_path) == before | {"config.yaml": b"- a list"}


def test_claim_refuses_a_folder_with_other_files(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(UserError, match="is not empty and is not a run folder"):
        RunFolder(tmp_path).claim(job(tmp_path))
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]
    with pytest.raises(UserError, match=r"thesis\.txt: cannot be used"):
        RunFolder(tmp_path / "thesis.txt").claim(job(tmp_path))


def test_claim_refuses_a_second_job_until_release(tmp_path: Path) -> None:
    first, second = RunFolder(tmp_path), RunFolder(tmp_path)
    first.claim(job(tmp_path))
    with pytest.raises(UserError, match="another job is running here"):
        second.claim(job(tmp_path))
    first.release()
    second.claim(job(tmp_path))


def test_lock_ends_with_its_process(tmp_path: Path) -> None:
    code = (
        "import sys, pathlib; from tapray.runfolder import RunFolder; from tapray.config import *\n"
        "out = pathlib.Path(sys.argv[1]); folder = RunFolder(out)\n"
        "folder.claim(JobConfig(out=out, simulate=SimulateConfig())); print('mine', flush=True); input()"
    )
    root = Path(__file__).parents[1]
    argv = [sys.executable, "-c", code, str(tmp_path)]
    with subprocess.Popen(argv, cwd=root, stdin=-1, stdout=-1, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "mine\n"
        with pytest.raises(UserError, match="another job is running here"):
            RunFolder(tmp_path).claim(job(tmp_path))
        process.kill()
    RunFolder(tmp_path).claim(job(tmp_path))


def test_stages_are_done_with_their_key_only(tmp_path: Path) -> None:
    folder = RunFolder(tmp_path)
    assert not folder.is_done("crops", "k1")
    assert folder.facts("crops") == {}
    (folder.stage("crops") / "shards").mkdir(parents=True)
    folder.mark_done("crops", "k1", path=folder.stage("crops"), counts=(1, np.int64(2)), key_of="x")
    assert folder.is_done("crops", "k1")
    assert not folder.is_done("crops", "k2")
    assert folder.facts("crops") == {"path": str(tmp_path / "crops"), "counts": [1, 2], "key_of": "x"}
    folder.mark_done("crops", "k2")
    assert folder.is_done("crops", "k2")
    folder.forget("crops")
    folder.forget("crops")
    assert not (tmp_path / "crops").exists()
    assert not folder.is_done("crops", "k2")
    for name in ("", "..", "a/b"):
        with pytest.raises(ValueError, match="not a stage name"):
            folder.forget(name)
    assert tmp_path.exists()

"""The copy of a run folder."""

from __future__ import annotations

import io
import shutil
import uuid
from pathlib import Path

import pytest
from upath import UPath

from tapray import mirror
from tapray.console import Reporter
from tapray.errors import UserError
from tapray.job import run_job
from tapray.mirror import INDEX, Mirror
from tests.conftest import files, tiny_config


@pytest.fixture
def target() -> UPath:
    return UPath(f"memory://{uuid.uuid4().hex}/runs/a")


def filled(folder: Path) -> Path:
    for name, text in (
        *(("config.yaml", "name: a"), ("shard/done.json", "{}"), ("shard/p.parquet", "crops")),
        *(("pretrain/log.jsonl", "1\n"), ("pretrain/frames/f.npy", "frames"), (".lock", "")),
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text)
    return folder


def test_a_lost_folder_comes_back(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    assert Mirror(out, target).push() == 4
    before = files(out)
    shutil.rmtree(out)
    assert Mirror(out, target).pull() == 4
    del before["pretrain/frames/f.npy"]  # made anew
    assert files(out) == before
    assert Mirror(out, target).pull() == 0


def test_only_what_has_changed_is_copied(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    copy = Mirror(out, target)
    copy.push()
    assert copy.push() == 0
    (out / "pretrain" / "log.jsonl").write_text("1\n2\n")
    (out / "shard" / "p.parquet").unlink()
    assert copy.push() == 1
    assert not (target / "shard" / "p.parquet").exists()
    assert Mirror(out, target).push() == 0  # of another process: told by content


def test_a_place_that_cannot_be_written_is_told_before_anything_is_done(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="copy cannot be used"):
        Mirror(tmp_path / "run", tmp_path / "file" / "copy").probe()
    Mirror(tmp_path / "run", tmp_path / "copy").probe()
    assert not [*(tmp_path / "copy").iterdir()]


def test_nothing_is_copied_before_a_stage_is_done(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    (out / "shard" / "done.json").unlink()
    assert Mirror(out, target).push() == 0
    assert not (target / INDEX).exists()


def test_what_an_interrupted_copying_has_left_is_not_taken(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    Mirror(out, target).push()
    (target / "shard" / "p.parquet").write_text("newer than the index")  # so its stage is not done either
    (target / "pretrain" / "log.jsonl").write_text("1\n2\n")  # only longer
    shutil.rmtree(out)
    assert Mirror(out, target).pull() == 2
    assert not (out / "shard").exists()
    assert (out / "pretrain" / "log.jsonl").read_text() == "1\n"


def test_an_interrupted_fetching_goes_on(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    Mirror(out, target).push()
    before = files(out)
    for name in ("config.yaml", "shard/done.json", "shard/p.parquet"):
        (out / name).unlink()
    Mirror(out, target).pull()
    assert files(out) == before


def test_a_folder_of_something_else_is_left_alone(tmp_path: Path, target: UPath) -> None:
    out = filled(tmp_path / "run")
    Mirror(out, target).push()
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("")
    assert Mirror(other, target).pull() == 0


def test_it_is_kept_while_work_goes_on(
    tmp_path: Path, target: UPath, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mirror, "EVERY_S", 0.01)
    out = filled(tmp_path / "run")

    def work() -> None:
        with Mirror(out, target).kept():
            while not (target / INDEX).exists():
                pass
            (out / "last").write_text("1")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        work()
    assert (target / "last").read_text() == "1"


@pytest.mark.slow
def test_a_job_whose_folder_is_lost_goes_on_from_the_copy(
    ray_cluster: None, tmp_path: Path, target: UPath
) -> None:
    out = tmp_path / "run"
    config = tiny_config(out).model_copy(update={"mirror": target})
    run_job(config, until="shard", reporter=Reporter("quiet"))
    before = files(out)
    shutil.rmtree(out)
    told = io.StringIO()
    run_job(config, until="shard", reporter=Reporter("rich", told))
    assert "taken from memory://" in told.getvalue()
    assert "every stage is done" in told.getvalue()
    assert files(out) == before

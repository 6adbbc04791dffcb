"""Checkpoints: whole or not there, the latest and the best."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors
import torch

from tapray.errors import UserError
from tapray.pretrain.checkpoints import Checkpoints, may_be_gone


def steps(checkpoints: Checkpoints) -> list[int]:
    return [saved.step for saved in checkpoints.all()]


def test_the_latest_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints, scores = Checkpoints(tmp_path, 2), list[float]()
    for epoch, score in enumerate([0.6, 0.9, 0.5, 0.8, 0.9, 0.4]):
        scores.append(score)
        assert checkpoints.save({"x": torch.tensor([epoch])}, 10 * epoch + 10, scores, True)
        assert checkpoints.save({"x": torch.tensor([-1])}, 10 * epoch + 15, scores, False)
    assert steps(checkpoints) == [20, 50, 60, 65]  # two best, the first of equals first, and two latest
    latest = checkpoints.latest()
    assert latest is not None
    assert (latest.step, latest.scores, latest.scored) == (65, tuple(scores), False)
    assert checkpoints.best().step == 20
    assert int(checkpoints.best().tensors()["x"]) == 1


def test_a_file_that_is_damaged_or_half_written_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    for step in (1, 2):
        checkpoints.save({"x": torch.arange(100)}, step, [0.5], True)
    (tmp_path / ".step_00000003.safetensors.abc.tapray-tmp").write_bytes(b"x")
    path = tmp_path / "step_00000002.safetensors"
    path.write_bytes(path.read_bytes()[:-8])
    assert steps(checkpoints) == [1]


def test_a_file_that_is_gone_when_it_is_opened_is_passed_over(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    checkpoints.save({"x": torch.zeros(1)}, 1, [0.5], True)
    (tmp_path / "step_00000002.safetensors").symlink_to(tmp_path / "pruned")
    assert steps(checkpoints) == [1]


def test_a_file_that_goes_between_two_looks_of_its_reader_is_passed_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoints = Checkpoints(tmp_path, 3)
    for step in (1, 2, 3):
        checkpoints.save({"x": torch.zeros(1)}, step, [0.5], True)
    third, opened = checkpoints.all()[-1], safetensors.safe_open

    def reader(path: Path, **given: Any) -> Any:  # opens twice: itself, then through PyTorch
        if path.stem.endswith("2"):
            path.unlink()
            torch.UntypedStorage.from_file(str(path), False, 1)
        return opened(path, **given)

    monkeypatch.setattr("tapray.pretrain.checkpoints.safe_open", reader)
    assert steps(checkpoints) == [1, 3]
    third.path.unlink()
    with pytest.raises(FileNotFoundError):
        third.tensors()
    with pytest.raises(RuntimeError, match="damaged"), may_be_gone(tmp_path):
        raise RuntimeError("damaged")


def test_without_an_epoch_there_is_no_best(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path, 1)
    assert checkpoints.latest() is None
    checkpoints.save({"x": torch.zeros(1)}, 5, [], False)
    with pytest.raises(UserError, match="holds no checkpoint"):
        checkpoints.best()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=16m", "tmpfs", disk], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here (needs root)")
    yield disk
    subprocess.run(["umount", disk], check=True)


def test_a_full_disk_leaves_what_is_there(small_disk: Path) -> None:
    checkpoints = Checkpoints(small_disk, 1)
    assert checkpoints.save({"x": torch.zeros(1_600_000)}, 1, [0.5], True)
    (small_disk / "filler").write_bytes(bytes(8 << 20))
    assert not checkpoints.save({"x": torch.zeros(1_600_000)}, 2, [0.5, 0.6], True)
    assert sorted(path.name for path in small_disk.iterdir()) == ["filler", "step_00000001.safetensors"]
    (small_disk / "filler").unlink()
    assert checkpoints.save({"x": torch.zeros(1_600_000)}, 3, [0.5, 0.6, 0.7], True)
    assert steps(checkpoints) == [3]


def test_the_best_epoch_that_found_no_room_is_written_later(small_disk: Path) -> None:
    checkpoints, filler = Checkpoints(small_disk, 1), small_disk / "filler"
    filler.write_bytes(bytes(15 << 20))
    for step, scores in enumerate([[0.6], [0.6, 0.9], [0.6, 0.9, 0.5]], start=1):
        assert not checkpoints.save({"x": torch.full((400_000,), step)}, step, scores, True)
    assert not checkpoints.save({"x": torch.zeros(400_000)}, 4, [0.6, 0.9, 0.5], False)
    filler.unlink()
    assert checkpoints.save({"x": torch.zeros(400_000)}, 5, [0.6, 0.9, 0.5], False)
    assert steps(checkpoints) == [2, 5]
    assert float(checkpoints.best().tensors()["x"][0]) == 2

"""Files and folders that appear whole or not at all."""

from __future__ import annotations

from pathlib import Path

import pytest

from tapray.atomic import atomic_folder, atomic_write
from tests.conftest import files


def test_atomic_write_replaces_and_leaves_nothing_beside(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "table.csv"
    atomic_write(path, "ä,1\n")
    atomic_write(path, b"b,2\n")
    assert files(tmp_path) == {"deep/table.csv": b"b,2\n"}
    (tmp_path / "folder" / "full").mkdir(parents=True)
    with pytest.raises(OSError, match="folder") as caught:
        atomic_write(tmp_path / "folder", "x")
    assert caught.value.filename == str(tmp_path / "folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["deep", "folder"]


def test_atomic_folder_replaces_as_a_whole(tmp_path: Path) -> None:
    path = tmp_path / "crops"
    for text in ("old", "new"):
        with atomic_folder(path) as folder:
            (folder / "sub").mkdir()
            (folder / "sub" / f"{text}.txt").write_text(text)
            assert (path / "sub" / "old.txt").exists() == (text == "new")
    assert files(tmp_path) == {"crops/sub/new.txt": b"new"}


def test_atomic_folder_keeps_the_old_on_failure(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "crops") as folder:
        (folder / "a").write_text("old")

    def fail() -> None:
        with atomic_folder(tmp_path / "crops") as folder:
            (folder / "a").write_text("new")
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fail()
    assert files(tmp_path) == {"crops/a": b"old"}
    assert [path.name for path in tmp_path.iterdir()] == ["crops"]

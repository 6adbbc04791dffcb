"""Paths and addresses."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from upath import UPath

from tapray.entries import MovieEntry
from tapray.locations import is_remote, location, state


def test_what_is_an_address() -> None:
    assert is_remote("s3://bucket/m.zarr")
    assert is_remote(UPath("memory://m.zarr"))
    assert not is_remote(Path("data/m.tif"))
    assert isinstance(location("a/b.tif"), Path)
    for wrong, match in ((3, "not a path"), ("foo://x", "not known")):
        with pytest.raises(ValueError, match=match):
            location(wrong)


def test_addresses_survive_a_configuration() -> None:
    entry = MovieEntry.model_validate({"path": "memory://bucket/m.zarr"})
    again = MovieEntry.model_validate_json(entry.model_dump_json())
    assert again == entry
    assert str(again.path) == "memory://bucket/m.zarr"


def test_changed_files_show(tmp_path: Path) -> None:
    (tmp_path / "m" / "deep").mkdir(parents=True)
    file = tmp_path / "m" / "deep" / "c"
    file.write_text("1")
    before = state(tmp_path / "m")
    assert state(tmp_path / "m") == before
    os.utime(file, ns=(1, 1))
    assert state(tmp_path / "m") != before
    assert state(tmp_path / "none") == []
    assert [name for name, _, _ in state(file)] == ["c"]


def test_changed_addresses_show() -> None:
    folder = UPath("memory://state/m.zarr")
    (folder / "0").write_text("1")
    before = state(folder)
    assert len(before) == 1
    (folder / "0").write_text("12")
    assert state(folder) != before
    assert state(UPath("https://example.org/m.zarr")) == [("https://example.org/m.zarr", 0, "")]
    assert state(UPath("memory://state/none.zarr")) == []

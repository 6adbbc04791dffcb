"""Folders of PNG frames."""

from __future__ import annotations

import struct
import zlib
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tapray.data.movies import open_movie
from tapray.entries import Reading
from tapray.errors import UserError


def write_frames(folder: Path, movie: np.ndarray) -> Path:
    folder.mkdir()
    for t, frame in enumerate(movie):
        Image.fromarray(frame).save(folder / f"t{t}.png")
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_grey_frames(tmp_path: Path, dtype: type) -> None:
    pixels = np.random.default_rng(0).integers(0, np.iinfo(dtype).max, (11, 12, 15)).astype(dtype)
    movie = open_movie(write_frames(tmp_path / "movie", pixels))
    assert (movie.shape, movie.dtype) == ((11, 12, 15), np.dtype(dtype))
    np.testing.assert_array_equal(movie.read(8, 11), pixels[8:])


def test_one_sample_of_a_colour_is_a_channel(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 255, (3, 12, 15, 3)).astype(np.uint8)
    folder = write_frames(tmp_path / "movie", pixels)
    with pytest.raises(UserError, match="has 3 channels; give channel"):
        open_movie(folder)
    np.testing.assert_array_equal(open_movie(folder, reading=Reading(channel=1)).read(0, 3), pixels[..., 1])


def test_colour_of_16_bit_is_refused_not_cut_down_to_8(tmp_path: Path) -> None:
    def chunk(name: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))

    header = struct.pack(">IIBBBBB", 5, 4, 16, 2, 0, 0, 0)  # RGB
    rows = zlib.compress(bytes(4 * (1 + 5 * 6)))
    parts = chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    (tmp_path / "movie").mkdir()
    (tmp_path / "movie" / "t0.png").write_bytes(b"\x89PNG\r\n\x1a\n" + parts)
    with pytest.raises(UserError, match=r"t0\.png: cannot read intensities from a PNG of mode RGB;16"):
        open_movie(tmp_path / "movie")


def test_faults(tmp_path: Path) -> None:
    folder = write_frames(tmp_path / "movie", np.zeros((3, 12, 15), np.uint8))
    whole = (folder / "t1.png").read_bytes()
    for content, match in (
        (whole[:-7], "truncated"),
        (b"", "not a readable PNG"),
        (b"GIF89a", "not a readable"),
    ):
        (folder / "t1.png").write_bytes(content)
        with pytest.raises(UserError, match=rf"t1\.png: {match}"):
            open_movie(folder)
    Image.fromarray(np.zeros((12, 15), bool)).save(folder / "t1.png")
    with pytest.raises(UserError, match=r"t1\.png: cannot read intensities from a PNG of mode 1"):
        open_movie(folder)
    Image.fromarray(np.zeros((12, 15), np.uint16)).save(folder / "t1.png")
    with pytest.raises(UserError, match=r"t1\.png: is YX \(12, 15\) uint16, but t0\.png is"):
        open_movie(folder)

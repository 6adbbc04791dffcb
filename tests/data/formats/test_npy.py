"""NumPy files: read in part, whatever the order of the axes and the bytes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tapray.data.movies import open_movie
from tapray.entries import Reading
from tapray.errors import UserError


@pytest.mark.parametrize("dtype", ["<u2", ">u2", "u1", "<f4"])
def test_a_movie_is_read_in_part(tmp_path: Path, dtype: str) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (9, 12, 15)).astype(dtype)
    np.save(tmp_path / "m.npy", pixels)
    movie = open_movie(tmp_path / "m.npy")
    assert movie.shape == (9, 12, 15)
    assert movie.dtype.isnative
    np.testing.assert_array_equal(movie.read(2, 5), pixels[2:5])


@pytest.mark.parametrize("axes", ["TCYX", "CTYX", "YXTC", "CTXY"])
def test_any_order_of_axes(tmp_path: Path, axes: str) -> None:
    stack = np.random.default_rng(1).integers(0, 200, (4, 2, 12, 15)).astype(np.uint8)  # T C Y X
    np.save(tmp_path / "m.npy", np.ascontiguousarray(stack.transpose(["TCYX".index(axis) for axis in axes])))
    movie = open_movie(tmp_path / "m.npy", reading=Reading(axes=axes, channel=1))
    np.testing.assert_array_equal(movie.read(1, 4), stack[1:4, 1])


def test_only_the_frames_asked_for_are_read(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 200, (9, 12, 15)).astype(np.uint8)
    np.save(tmp_path / "m.npy", pixels)
    movie = open_movie(tmp_path / "m.npy")
    content = (tmp_path / "m.npy").read_bytes()
    (tmp_path / "m.npy").write_bytes(content[: -4 * 12 * 15])  # the last four frames are gone
    np.testing.assert_array_equal(movie.read(0, 5), pixels[:5])
    with pytest.raises(UserError, match=r"m\.npy: not a readable NumPy file, or damaged"):
        movie.read(4, 6)


@pytest.mark.parametrize(
    ("pixels", "match"),
    [
        (
            np.zeros((4, 8, 9), np.int32),
            "pixels are int32, not 8 or 16 bit unsigned integers or 32 bit floats",
        ),
        (np.asfortranarray(np.zeros((4, 8, 9), np.uint8)), "in Fortran order is not read"),
        (np.zeros(7, np.uint8), r"of uint8 and shape \(7,\) is not read"),
        (np.zeros((1, 8, 9), np.uint8), "one frame only"),
        (np.zeros((8, 9), np.uint8), "one frame only"),
        (np.zeros((4, 0, 9), np.uint8), "hold nothing"),
        (np.full((4, 8, 9), None), "of object"),
    ],
)
def test_faults(tmp_path: Path, pixels: np.ndarray, match: str) -> None:
    np.save(tmp_path / "m.npy", pixels, allow_pickle=True)
    with pytest.raises(UserError, match=rf"m\.npy: .*{match}"):
        open_movie(tmp_path / "m.npy")


def test_pixels_that_are_not_finite_are_named(tmp_path: Path) -> None:
    pixels = np.ones((6, 8, 9), np.float32)
    pixels[3, 2, 2] = np.nan
    pixels[5, 0, 0] = -np.inf
    np.save(tmp_path / "m.npy", pixels)
    movie = open_movie(tmp_path / "m.npy")
    np.testing.assert_array_equal(movie.read(0, 3), pixels[:3])
    for start, frame in ((0, 3), (4, 5)):
        with pytest.raises(UserError, match=f"frame {frame} holds pixels that are not finite"):
            movie.read(start, 6)


@pytest.mark.parametrize("length", [0, 5, 60, 127, 500])
def test_a_file_cut_short(tmp_path: Path, length: int) -> None:
    np.save(tmp_path / "m.npy", np.ones((6, 8, 9), np.uint16))
    (tmp_path / "m.npy").write_bytes((tmp_path / "m.npy").read_bytes()[:length])
    with pytest.raises(UserError, match=r"m\.npy: (not a readable NumPy file|truncated)"):
        open_movie(tmp_path / "m.npy")

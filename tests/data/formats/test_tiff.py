"""TIFF stacks of all kinds, whole, cut short and damaged."""

import contextlib
import logging
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tapray.data.movies import Movie, open_movie
from tapray.entries import Reading
from tapray.errors import UserError

STACKS: dict[str, dict[str, Any]] = {
    "plain": {},
    "bare": {"metadata": None},
    "imagej": {"imagej": True},
    "imagej_time": {"imagej": True, "metadata": {"axes": "TYX"}},
    "imagej_one_header": {"imagej": True, "metadata": {"axes": "TYX"}, "truncate": True},
    "bigtiff": {"bigtiff": True},
    "big_endian": {"byteorder": ">"},
    "big_endian_one_header": {"byteorder": ">", "truncate": True},
    "ome": {"ome": True, "metadata": {"axes": "TYX"}},
    "zlib": {"compression": "zlib", "predictor": True},
    "lzw": {"compression": "lzw"},
    "zstd": {"compression": "zstd"},
    "tiled": {"tile": (16, 16)},
    "strips": {"rowsperstrip": 5, "metadata": None},
}


def frames(n: int = 6, height: int = 17, width: int = 23, dtype: type = np.uint16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (n, height, width)).astype(dtype)


def opened(path: Path) -> Movie | None:
    """The movie, or None where opening it is a UserError; any other error is a failure."""
    with contextlib.suppress(UserError):
        return open_movie(path)
    return None


@pytest.mark.parametrize("kind", STACKS)
def test_every_kind_of_stack_is_read_in_part_and_in_whole(tmp_path: Path, kind: str) -> None:
    pixels = frames()
    tifffile.imwrite(tmp_path / "m.tif", pixels, **STACKS[kind])
    movie = open_movie(tmp_path / "m.tif")
    assert (movie.shape, movie.dtype, movie.name) == ((6, 17, 23), np.dtype(np.uint16), "m")
    np.testing.assert_array_equal(movie.read(0, 6), pixels)
    part = movie.read(2, 4)
    np.testing.assert_array_equal(part, pixels[2:4])
    assert part.dtype == np.uint16
    assert part.dtype.isnative
    assert movie.read(3, 3).shape == (0, 17, 23)


@pytest.mark.parametrize("kind", STACKS)
def test_a_truncated_stack_is_never_read_as_something_else(tmp_path: Path, kind: str) -> None:
    pixels = frames()
    whole, cut = tmp_path / "m.tif", tmp_path / "cut.tif"
    tifffile.imwrite(whole, pixels, **STACKS[kind])
    content = whole.read_bytes()
    at_open = 0
    lengths = range(0, len(content), len(content) // 60)
    for length in lengths:
        cut.write_bytes(content[:length])
        movie = opened(cut)
        if movie is None:
            at_open += 1
        else:  # some writers keep what nobody needs at the end: then nothing is lost
            np.testing.assert_array_equal(movie.read(0, movie.shape[0]), pixels)
    assert at_open > 0.8 * len(lengths)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(kind=st.sampled_from(sorted(STACKS)), data=st.data())
def test_damage_is_a_user_error_or_harmless(tmp_path: Path, kind: str, data: st.DataObject) -> None:
    file = tmp_path / "m.tif"
    tifffile.imwrite(file, frames(5), **STACKS[kind])
    content = bytearray(file.read_bytes())
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] = data.draw(st.integers(0, 255))
    file.write_bytes(content)
    movie = opened(file)
    if movie is not None:
        with contextlib.suppress(UserError):
            assert movie.read(0, movie.shape[0]).shape == movie.shape


def test_damaged_compressed_pixels_are_a_user_error_on_reading(tmp_path: Path) -> None:
    file = tmp_path / "m.tif"
    tifffile.imwrite(file, frames(), compression="zlib")
    with tifffile.TiffFile(file) as tif:
        at = tif.pages[3].dataoffsets[0]
    content = bytearray(file.read_bytes())
    content[at : at + 40] = bytes(40)
    file.write_bytes(content)
    movie = open_movie(file)
    np.testing.assert_array_equal(movie.read(0, 3), frames()[:3])
    with pytest.raises(UserError, match=r"m\.tif: .*damaged"):
        movie.read(2, 4)


def test_faults_leave_no_lines_of_their_own(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "m.tif"
    tifffile.imwrite(file, frames(), metadata=None, compression="zlib")
    file.write_bytes(file.read_bytes()[:1500])
    root = logging.getLogger()
    handlers, root.handlers = root.handlers, []
    try:
        with pytest.raises(UserError):
            open_movie(file)
    finally:
        root.handlers = handlers
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("pixels", "how", "match"),
    [
        (frames(1)[0], {}, "one frame only"),
        (frames().astype(np.float64), {}, "float64, not 8 or 16 bit unsigned"),
        (frames().astype(np.int16), {}, "int16, not 8 or 16 bit unsigned"),
        (np.zeros((5, 8, 9, 3), np.uint8), {"photometric": "rgb"}, "has 3 channels; give channel"),
        (np.zeros((8, 9, 3), np.uint8), {"photometric": "rgb"}, "one frame only"),
        (np.zeros((3, 8, 9), np.uint8), {"photometric": "rgb", "planarconfig": "separate"}, "one frame only"),
        (np.zeros((5, 2, 8, 9), np.uint8), {"imagej": True, "metadata": {"axes": "TCYX"}}, "has 2 channels"),
    ],
)
def test_faults_of_stacks(tmp_path: Path, pixels: np.ndarray, how: dict[str, Any], match: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", pixels, **how)
    with pytest.raises(UserError, match=match) as caught:
        open_movie(tmp_path / "m.tif")
    assert "m.tif" in str(caught.value)


OME = {"axes": "TCYX", "PhysicalSizeX": 325.0, "PhysicalSizeXUnit": "nm"}
OME |= {"TimeIncrement": 5.0, "TimeIncrementUnit": "min"}
IMAGEJ = {"axes": "TCYX", "unit": "um", "finterval": 12.5}
PRINTED = {"metadata": {"axes": "TCYX"}, "resolution": (72, 72)}  # dots an inch, not a pixel size


@pytest.mark.parametrize(
    ("how", "pixel_size", "frame_interval"),
    [
        ({"ome": True, "metadata": OME}, 0.325, 300.0),
        ({"imagej": True, "resolution": (1 / 0.65, 1 / 0.65), "metadata": IMAGEJ}, 0.65, 12.5),
        (PRINTED, None, None),
    ],
)
def test_hyperstacks_say_axes_pixel_size_and_interval(
    tmp_path: Path, how: dict[str, Any], pixel_size: float | None, frame_interval: float | None
) -> None:
    stack = np.random.default_rng(0).integers(0, 60000, (6, 2, 17, 23)).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", stack, photometric="minisblack", **how)
    movie = open_movie(tmp_path / "m.tif", reading=Reading(channel=1))
    assert movie.pixel_size == (pytest.approx(pixel_size) if pixel_size else None)
    assert movie.frame_interval == (pytest.approx(frame_interval) if frame_interval else None)
    np.testing.assert_array_equal(movie.read(2, 5), stack[2:5, 1])
    said = Reading(channel=0, pixel_size=2.0, frame_interval=60.0)
    movie = open_movie(tmp_path / "m.tif", reading=said)
    assert (movie.pixel_size, movie.frame_interval) == (2.0, 60.0)


def test_a_sample_of_a_colour_movie_is_taken(tmp_path: Path) -> None:
    stack = np.random.default_rng(0).integers(0, 255, (4, 17, 23, 3)).astype(np.uint8)
    tifffile.imwrite(tmp_path / "m.tif", stack, photometric="rgb")
    movie = open_movie(tmp_path / "m.tif", reading=Reading(channel=2))
    np.testing.assert_array_equal(movie.read(1, 3), stack[1:3, :, :, 2])


def test_frames_of_differing_shape_in_a_stack_are_a_fault(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "m.tif") as writer:
        writer.write(np.zeros((8, 9), np.uint8), metadata=None)
        writer.write(np.zeros((8, 10), np.uint8), metadata=None)
    with pytest.raises(UserError, match=r"m\.tif: frames differ: frame 1 is \(8, 10\)"):
        open_movie(tmp_path / "m.tif")


@pytest.mark.parametrize("layout", ["plain", "row", "tiled", "zlib"])
def test_a_file_written_anew_is_never_read_by_old_places(tmp_path: Path, layout: str) -> None:
    path, first = tmp_path / "m.tif", np.arange(6 * 32 * 32, dtype=np.uint16).reshape(6, 32, 32)
    options: dict[str, dict[str, Any]] = {
        "plain": {},
        "row": {"imagej": True, "truncate": True},
        "tiled": {"tile": (16, 16)},
        "zlib": {"compression": "zlib"},
    }
    tifffile.imwrite(path, first, photometric="minisblack", **options[layout])
    movie = open_movie(path)
    np.testing.assert_array_equal(movie.read(0, 6), first)
    note = {"Info": "x" * 500} if layout == "row" else {"note": "x" * 500}
    tifffile.imwrite(path, first, photometric="minisblack", metadata=note, **options[layout])
    with pytest.raises(UserError, match="has changed since it was opened"):
        movie.read(1, 3)
    np.testing.assert_array_equal(open_movie(path).read(1, 3), first[1:3])


def test_frames_appended_one_by_one_are_a_movie(tmp_path: Path) -> None:
    path, pixels = (
        tmp_path / "m.tif",
        np.random.default_rng(0).integers(0, 999, (7, 20, 24)).astype(np.uint16),
    )
    for frame in pixels:
        tifffile.imwrite(path, frame, append=True)
    movie = open_movie(path)
    assert movie.shape == pixels.shape
    np.testing.assert_array_equal(movie.read(2, 6), pixels[2:6])
    tifffile.imwrite(path, pixels[0, :10], append=True)
    with pytest.raises(UserError, match="frames differ"):
        open_movie(path)


def test_a_damaged_page_has_not_changed(tmp_path: Path) -> None:
    path, pixels = tmp_path / "m.tif", np.random.default_rng(0).integers(0, 9, (5, 64, 64)).astype(np.uint16)
    tifffile.imwrite(path, pixels, compression="lzw", photometric="minisblack")
    with tifffile.TiffFile(path) as tif:
        offset, count = tif.pages[2].dataoffsets[0], tif.pages[2].databytecounts[0]
    data = bytearray(path.read_bytes())
    data[offset + count // 2 : offset + count] = bytes(count - count // 2)
    path.write_bytes(data)
    with pytest.raises(UserError, match="not a readable TIFF file, or damaged"):
        open_movie(path).read(0, 5)


def test_unnamed_pages_of_every_frame_may_be_channels(tmp_path: Path) -> None:
    pixels = np.random.default_rng(0).integers(0, 999, (4, 2, 20, 24)).astype(np.uint16)
    for t, frame in enumerate(pixels):
        tifffile.imwrite(tmp_path / f"t{t:03d}.tif", frame, photometric="minisblack", metadata=None)
    with pytest.raises(UserError, match="axes"):
        open_movie(tmp_path)
    movie = open_movie(tmp_path, reading=Reading(axes="TCYX", channel=1))
    np.testing.assert_array_equal(movie.read(1, 4), pixels[1:4, 1])

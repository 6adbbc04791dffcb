"""Movies on disk: formats, faults, partial reads."""

import hashlib
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.data.movies import open_movie
from tapray.errors import UserError

SHARED = Path(__file__).parents[3] / "shared" / "data"


def frames(n: int = 6, height: int = 17, width: int = 23, dtype: type = np.uint16) -> np.ndarray:
    rng = np.random.default_rng(0)
    return rng.integers(0, np.iinfo(dtype).max, (n, height, width)).astype(dtype)


def write_folder(folder: Path, movie: np.ndarray, name: str = "t{:03d}.tif", first: int = 0) -> Path:
    folder.mkdir()
    for t, frame in enumerate(movie, first):
        tifffile.imwrite(folder / name.format(t), frame, compression="zlib")
    return folder


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("name", ["t{:03d}.tif", "img{}.TIFF", "ch2_t{}_z07.tif"])
def test_a_folder_of_frames_is_read_in_the_order_of_its_numbers(
    tmp_path: Path, name: str, dtype: type
) -> None:
    pixels = frames(12, dtype=dtype)
    folder = write_folder(tmp_path / "movie", pixels, name, first=3)  # 9, 10: order is not that of letters
    (folder / "notes.txt").write_text("not a frame")
    (folder / "._t003.tif").write_bytes(b"left by another system")
    movie = open_movie(folder, "mine")
    assert (movie.shape, movie.dtype, movie.name) == ((12, 17, 23), np.dtype(dtype), "mine")
    np.testing.assert_array_equal(movie.read(0, 12), pixels)
    np.testing.assert_array_equal(movie.read(6, 9), pixels[6:9])


def test_only_the_frames_asked_for_are_read(tmp_path: Path) -> None:
    pixels = frames()
    movie = open_movie(write_folder(tmp_path / "movie", pixels))
    movie.header.files[5].write_bytes(b"gone")
    np.testing.assert_array_equal(movie.read(0, 5), pixels[:5])
    with pytest.raises(UserError, match=r"t005\.tif"):
        movie.read(4, 6)


def _delete(name: str) -> Callable[[Path], None]:
    return lambda folder: (folder / name).unlink()


def _write(name: str, frame: np.ndarray, **how: Any) -> Callable[[Path], object]:
    return lambda folder: tifffile.imwrite(folder / name, frame, **how)


@pytest.mark.parametrize(
    ("edit", "match"),
    [
        (_delete("t002.tif"), r"movie: t001\.tif and t003\.tif are neighbours, frames are missing"),
        (_write("t3.tif", frames()[0]), r"t003\.tif and t3\.tif have the same number"),
        (_write("mask004.tif", frames()[0]), "differ in more than a number"),
        (_write("t003.tif", frames(1, 18)[0]), r"t003\.tif: is YX \(18, 23\) uint16, but t000\.tif"),
        (_write("t003.tif", frames(dtype=np.uint8)[0]), r"t003\.tif: is YX \(17, 23\) uint8, but t000\.tif"),
        (_write("t003.tif", frames(5)), r"t003\.tif: holds 5 frames in a folder of single frames"),
        (lambda folder: (folder / "t001.tif").write_bytes(b""), r"t001\.tif: not a readable TIFF"),
        (lambda folder: [f.unlink() for f in folder.glob("t00[1-9].tif")], "one frame only"),
        (lambda folder: [f.unlink() for f in folder.iterdir()], "no TIFF or PNG frames"),
    ],
)
def test_faults_of_folders(tmp_path: Path, edit: Callable[[Path], object], match: str) -> None:
    folder = write_folder(tmp_path / "movie", frames())
    edit(folder)
    with pytest.raises(UserError, match=match):
        open_movie(folder)


def test_two_counting_numbers_are_a_fault(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "movie", frames(3), "c1_t{}.tif")
    for t in range(3):
        tifffile.imwrite(folder / f"c2_t{t}.tif", frames(1)[0])
    with pytest.raises(UserError, match="more than one number"):
        open_movie(folder)


def test_ome_frames_that_name_each_other_are_single_frames(tmp_path: Path) -> None:
    pixels = frames(3)
    name = '<UUID FileName="t{0}.ome.tif">urn:uuid:{0}</UUID>'
    plane = f'<TiffData FirstT="{{0}}" IFD="0" PlaneCount="1">{name}</TiffData>'
    ome = (
        '<?xml version="1.0" encoding="UTF-8"?>'
        '<OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:{}">'
        '<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint16"'
        ' SizeX="23" SizeY="17" SizeZ="1" SizeC="1" SizeT="3">'
        f"{''.join(plane.format(t) for t in range(3))}</Pixels></Image></OME>"
    )
    for t, frame in enumerate(pixels):
        tifffile.imwrite(tmp_path / f"t{t}.ome.tif", frame, description=ome.format(t), metadata=None)
    movie = open_movie(tmp_path)
    assert movie.shape == pixels.shape
    np.testing.assert_array_equal(movie.read(0, 3), pixels)


def test_missing_and_foreign_paths(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"none\.tif: no such file or folder"):
        open_movie(tmp_path / "none.tif")
    (tmp_path / "movie.mp4").write_bytes(b"x")
    with pytest.raises(UserError, match=r"movie\.mp4: not a movie of a known format"):
        open_movie(tmp_path / "movie.mp4")


def test_frames_that_are_not_there_are_an_index_error(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", frames())
    for start, stop in ((-1, 2), (4, 7), (3, 2)):
        with pytest.raises(IndexError):
            open_movie(tmp_path / "m.tif").read(start, stop)


def test_a_movie_replaced_behind_our_back_is_a_fault(tmp_path: Path) -> None:
    tifffile.imwrite(tmp_path / "m.tif", frames())
    movie = open_movie(tmp_path / "m.tif")
    tifffile.imwrite(tmp_path / "m.tif", frames(height=18))
    with pytest.raises(UserError, match="has changed"):
        movie.read(0, 2)


def test_fingerprint_is_of_the_content_alone(tmp_path: Path) -> None:
    one = open_movie(write_folder(tmp_path / "one", frames()))
    two = open_movie(write_folder(tmp_path / "two", frames(), "frame{}.tif"))
    assert one.fingerprint() == two.fingerprint()
    changed = frames()
    changed[5, 0, 0] ^= 1
    assert open_movie(write_folder(tmp_path / "three", changed)).fingerprint() != one.fingerprint()
    tifffile.imwrite(tmp_path / "m.tif", frames())
    expected = hashlib.sha256((tmp_path / "m.tif").read_bytes()).hexdigest()
    assert open_movie(tmp_path / "m.tif").fingerprint() == expected


def test_a_movie_survives_pickling(tmp_path: Path) -> None:
    movie = open_movie(write_folder(tmp_path / "movie", frames()))
    copy = pickle.loads(pickle.dumps(movie))
    assert copy == movie
    np.testing.assert_array_equal(copy.read(1, 3), frames()[1:3])


@settings(max_examples=25)
@given(
    shape=st.tuples(st.integers(2, 5), st.integers(2, 20), st.integers(2, 20)),
    dtype=st.sampled_from([np.uint8, np.uint16]),
    compression=st.sampled_from([None, "zlib", "lzw", "zstd"]),
    folder=st.booleans(),
    seed=st.integers(0, 99),
)
def test_what_is_written_is_read(
    tmp_path_factory: pytest.TempPathFactory,
    shape: tuple[int, int, int],
    dtype: type,
    compression: str | None,
    folder: bool,
    seed: int,
) -> None:
    pixels: np.ndarray = np.random.default_rng(seed).integers(0, 200, shape).astype(dtype)
    path = tmp_path_factory.mktemp("movie")
    if folder:
        for t, frame in enumerate(pixels):
            tifffile.imwrite(path / f"t{t}.tif", frame, compression=compression, photometric="minisblack")
    else:
        path = path / "m.tif"
        tifffile.imwrite(path, pixels, compression=compression, photometric="minisblack")
    movie = open_movie(path)
    assert movie.shape == shape
    np.testing.assert_array_equal(movie.read(0, shape[0]), pixels)


@pytest.mark.parametrize(
    ("name", "shape", "dtype"),
    [
        ("Fluo-N2DL-HeLa", (92, 700, 1100), np.uint16),
        ("PhC-C2DL-PSC", (300, 576, 720), np.uint8),
        ("Fluo-N2DH-SIM+", (65, 690, 628), np.uint16),
    ],
)
def test_real_movies_open(name: str, shape: tuple[int, int, int], dtype: type) -> None:
    folder = SHARED / name / "01"
    if not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    movie = open_movie(folder)
    assert (movie.shape, movie.dtype) == (shape, np.dtype(dtype))
    last = movie.read(shape[0] - 1, shape[0])
    np.testing.assert_array_equal(last[0], tifffile.imread(folder / f"t{shape[0] - 1:03d}.tif"))

"""OME-Zarr 0.4 and 0.5: the same movie as in a TIFF, from a disk and from a file system of fsspec."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile
import zarr
from upath import UPath

from tapray.data.movies import open_movie
from tapray.entries import Reading
from tapray.errors import UserError

UNITS = {"T": ("time", "minute"), "C": ("channel", None), "Z": ("space", "micrometer")}


def write_zarr(path: Path, pixels: np.ndarray, axes: str = "TYX", version: str = "0.5", **more: Any) -> Path:
    """An OME-Zarr image of two resolutions, the second one of other size."""
    known = [(letter, *UNITS.get(letter, ("space", "micrometer"))) for letter in axes]
    listed = [
        {"name": letter.lower(), "type": kind, **({"unit": unit} if unit else {})}
        for letter, kind, unit in known
    ]
    scale = [{"T": 5.0, "C": 1.0}.get(letter, 0.65) for letter in axes]
    datasets = [
        {"path": str(level), "coordinateTransformations": [{"type": "scale", "scale": scale}]}
        for level in range(2)
    ]
    multiscales = [{"axes": listed, "datasets": datasets, "name": "movie"}]
    v3 = version == "0.5"
    group = zarr.open_group(str(path), mode="w", zarr_format=3 if v3 else 2)
    body = {"multiscales": multiscales, **more}
    group.attrs.update({"ome": {"version": version, **body}} if v3 else body)
    chunks = tuple(min(n, 3 if letter == "T" else 16) for letter, n in zip(axes, pixels.shape, strict=True))
    group.create_array("0", data=pixels, chunks=chunks)
    group.create_array("1", data=pixels[..., ::2, ::2], chunks=chunks)
    return path


@pytest.fixture
def pixels() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 60000, (7, 33, 41)).astype(np.uint16)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_the_same_movie_as_in_a_tiff(tmp_path: Path, pixels: np.ndarray, version: str) -> None:
    tifffile.imwrite(tmp_path / "m.tif", pixels)
    same, movie = (
        open_movie(tmp_path / "m.tif"),
        open_movie(write_zarr(tmp_path / "m.zarr", pixels, "TYX", version)),
    )
    assert (movie.shape, movie.dtype, movie.name) == (same.shape, same.dtype, "m")
    np.testing.assert_array_equal(movie.read(2, 6), same.read(2, 6))
    assert movie.pixel_size == pytest.approx(0.65)
    assert movie.frame_interval == pytest.approx(300.0)
    np.testing.assert_array_equal(pickle.loads(pickle.dumps(movie)).read(0, 7), pixels)


@pytest.mark.parametrize("version", ["0.4", "0.5"])
def test_a_channel_and_a_plane_are_taken(tmp_path: Path, version: str) -> None:
    stack = np.random.default_rng(1).integers(0, 255, (4, 2, 3, 20, 24)).astype(np.uint8)
    path = write_zarr(tmp_path / "m.zarr", stack, "TCZYX", version)
    with pytest.raises(UserError, match="has 2 channels; give channel: a number from 0 to 1"):
        open_movie(path)
    movie = open_movie(path, reading=Reading(channel=1, plane=2))
    np.testing.assert_array_equal(movie.read(1, 3), stack[1:3, 1, 2])


def test_an_address_is_read_as_a_path_is(tmp_path: Path, pixels: np.ndarray) -> None:
    path = write_zarr(tmp_path / "m.zarr", pixels)
    here = UPath(f"file://{path}")
    memory = UPath("memory://bucket/m.zarr")
    for file in path.rglob("*"):
        if file.is_file():
            (memory / str(file.relative_to(path))).write_bytes(file.read_bytes())
    for address in (here, memory):
        movie = open_movie(address)
        np.testing.assert_array_equal(movie.read(3, 5), pixels[3:5])
        assert movie.fingerprint() == open_movie(path).fingerprint()
    (UPath("memory://bucket/frames.npy")).write_bytes(npy_bytes(tmp_path, pixels))
    np.testing.assert_array_equal(open_movie(UPath("memory://bucket/frames.npy")).read(1, 4), pixels[1:4])


def npy_bytes(folder: Path, pixels: np.ndarray) -> bytes:
    np.save(folder / "x.npy", pixels)
    return (folder / "x.npy").read_bytes()


def test_fingerprints_tell_pixels_apart_not_chunks(tmp_path: Path, pixels: np.ndarray) -> None:
    one = open_movie(write_zarr(tmp_path / "a.zarr", pixels, version="0.4")).fingerprint()
    assert open_movie(write_zarr(tmp_path / "b.zarr", pixels, version="0.5")).fingerprint() == one
    pixels[6, 0, 0] ^= 1
    assert open_movie(write_zarr(tmp_path / "c.zarr", pixels)).fingerprint() != one


def test_faults(tmp_path: Path, pixels: np.ndarray) -> None:
    plain = tmp_path / "plain.zarr"
    zarr.open_group(str(plain), mode="w").create_array("inner", data=pixels)
    with pytest.raises(UserError, match=r"plain\.zarr: holds no OME-Zarr image"):
        open_movie(plain)
    plate = tmp_path / "plate.zarr"
    group = zarr.open_group(str(plate), mode="w")
    group.attrs["ome"] = {"version": "0.5", "plate": {}}
    group.create_group("A")
    with pytest.raises(UserError, match=r"is an OME-Zarr plate, not an image; .*it holds A"):
        open_movie(plate)
    (tmp_path / "empty.zarr").mkdir()
    with pytest.raises(UserError, match=r"empty\.zarr: holds no TIFF or PNG frames"):
        open_movie(tmp_path / "empty.zarr")
    damaged = write_zarr(tmp_path / "damaged.zarr", pixels)
    chunk = next(file for file in (damaged / "0").rglob("*") if file.is_file() and file.name != "zarr.json")
    chunk.write_bytes(chunk.read_bytes()[:10])
    with pytest.raises(UserError, match=r"damaged\.zarr: not a readable OME-Zarr image, or damaged"):
        open_movie(damaged).read(0, 7)
    (damaged / "zarr.json").write_text(json.dumps({"zarr_format": 3, "node_type": "group", "attributes": 3}))
    with pytest.raises(UserError, match=r"damaged\.zarr: "):
        open_movie(damaged)


@pytest.mark.parametrize("codec", ["blosc", "zstd"])
def test_shards_of_chunks_are_read_whole_and_in_part(tmp_path: Path, pixels: np.ndarray, codec: str) -> None:
    path = write_zarr(tmp_path / "m.zarr", pixels)
    group = zarr.open_group(str(path), mode="a")
    compressor = zarr.codecs.BloscCodec(cname="zstd") if codec == "blosc" else zarr.codecs.ZstdCodec()
    array = group.create_array(
        "0",
        shape=pixels.shape,
        dtype=pixels.dtype,
        chunks=(1, 11, 41),
        shards=(3, 33, 41),
        compressors=compressor,
        overwrite=True,
    )
    array[:] = pixels
    movie = open_movie(path)
    for start, stop in ((0, 1), (1, 3), (0, 3), (0, 7)):
        np.testing.assert_array_equal(movie.read(start, stop), pixels[start:stop])
    shard = path / "0" / "c" / "0" / "0" / "0"
    shard.write_bytes(shard.read_bytes()[:-40])
    with pytest.raises(UserError, match="not a readable OME-Zarr image, or damaged"):
        movie.read(0, 3)


@pytest.mark.parametrize("version", [2, 3])
def test_a_bare_array_is_said_to_be_one(tmp_path: Path, pixels: np.ndarray, version: int) -> None:
    zarr.create_array(str(tmp_path / "m.zarr"), data=pixels, zarr_format=version)
    with pytest.raises(UserError, match="is a bare Zarr array, not an OME-Zarr image"):
        open_movie(tmp_path / "m.zarr")

"""Shards hold what was cut, open without this package, and are the same bytes each time."""

from __future__ import annotations

from itertools import pairwise
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tifffile

from tapray.config import CropConfig
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.shards import ShardReader, cut_crops, make_shard, write_shard, write_table
from tapray.data.movies import Movie, open_movie

SHAPE, SIZE = (10, 40, 52), 12


@pytest.fixture
def movie(tmp_path: Path) -> Movie:
    frames = np.random.default_rng(0).integers(100, 5000, SHAPE).astype(np.uint16)
    tifffile.imwrite(tmp_path / "m.tif", frames, photometric="minisblack")
    return open_movie(tmp_path / "m.tif")


def index(delta: int, n: int = 30) -> pd.DataFrame:
    rng = np.random.default_rng(1)
    t = np.sort(rng.integers(0, SHAPE[0] - delta, n))
    corner = {"y": rng.integers(0, SHAPE[1] - SIZE + 1, n), "x": rng.integers(0, SHAPE[2] - SIZE + 1, n)}
    return pd.DataFrame({"crop_id": np.arange(n), "t": t, "delta": delta, **corner})


def write(movie: Movie, folder: Path, delta: int, parts: tuple[int, ...] = (0, 4, 8, 10)) -> ShardReader:
    crops, config = index(delta), CropConfig(size=SIZE, delta=delta)
    for part, (start, stop) in enumerate(pairwise(parts)):
        own = crops[(crops.t >= start) & (crops.t < stop)]
        frames = movie.read(start, min(stop + delta, SHAPE[0]))
        tables = make_shard(frames, start, stop - start, "m", own, config)
        assert [len(table) for table in tables] == [len(own), stop - start]
        write_shard(folder, part, tables)
    write_table(pa.Table.from_pandas(crops, preserve_index=False), folder / "index.parquet")
    return ShardReader(folder)


@pytest.mark.parametrize("delta", [1, 3])
def test_plain_arrow_reads_tensors_of_the_raw_pixels(movie: Movie, tmp_path: Path, delta: int) -> None:
    write(movie, tmp_path / "s", delta)
    frames, crops = movie.read(0, SHAPE[0]), index(delta)
    seen = []
    for path in sorted((tmp_path / "s").glob("crops-*.parquet")):
        table = pq.read_table(path)
        assert table.schema.field("pixels").type == pa.fixed_shape_tensor(pa.uint16(), (2, SIZE, SIZE))
        pixels = table["pixels"].combine_chunks().to_numpy_ndarray()
        for crop_id, pair in zip(table["crop_id"].to_pylist(), pixels, strict=True):
            row = crops.loc[crop_id]
            for frame, cut in zip((row.t, row.t + delta), pair, strict=True):
                assert np.array_equal(frames[frame, row.y : row.y + SIZE, row.x : row.x + SIZE], cut)
            seen.append(crop_id)
    assert seen == list(range(len(crops)))


def test_the_reader_normalises_by_whole_frames(movie: Movie, tmp_path: Path) -> None:
    reader, frames, crops = write(movie, tmp_path / "s", 1), movie.read(0, SHAPE[0]), index(1)
    ranges = frame_ranges(frames, "linear")
    assert np.array_equal(reader.ranges("m"), ranges)
    assert reader.index().equals(crops)
    for path in reader.parts():
        crop_id, pairs = reader.read_part(path, "linear")
        own = crops.loc[crop_id]
        t = own[["t"]].to_numpy() + np.array([0, 1])
        assert np.array_equal(pairs, normalise(cut_crops(frames, own, 0, SIZE), ranges[t], "linear"))


def test_the_same_movie_gives_the_same_bytes(movie: Movie, tmp_path: Path) -> None:
    for name in ("one", "two"):
        write(movie, tmp_path / name, 1)
    files = sorted(path.name for path in (tmp_path / "one").iterdir())
    assert len(files) == 7
    assert files == sorted(path.name for path in (tmp_path / "two").iterdir())
    for name in files:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes()


def test_a_range_without_crops_has_an_empty_table_of_the_same_type(movie: Movie) -> None:
    config = CropConfig(size=SIZE)
    frames = movie.read(0, 5)
    none, _ = make_shard(frames, 0, 4, "m", index(1).iloc[:0], config)
    some, _ = make_shard(frames, 0, 4, "m", index(1).iloc[:2], config)
    assert (len(none), len(some)) == (0, 2)
    assert none.schema == some.schema


def test_the_size_of_a_part_is_that_of_its_files(movie: Movie, tmp_path: Path) -> None:
    reader = write(movie, tmp_path / "s", 1, (0, 9, 10))  # no pair begins in the last frame
    assert not (tmp_path / "s" / "crops-00001.parquet").exists()
    files = {part: list((tmp_path / "s").glob(f"*-0000{part}.parquet")) for part in (0, 1)}
    assert [len(found) for found in files.values()] == [2, 1]
    for part, found in files.items():
        assert reader.size(part) == sum(path.stat().st_size for path in found)

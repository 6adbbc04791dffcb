"""Frame ranges: every frame once, the same files whatever the order, and nothing written twice."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from upath import UPath

from tapray.config import MovieEntry
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.crops.draw import Region
from tapray.crops.ranges import RANGE_BYTES, frame_ranges
from tapray.crops.shards import make_shard, write_shard
from tapray.crops.splits import whole
from tapray.data.movies import open_movie
from tapray.distributed import data
from tests.conftest import tiny_config

FRAMES = np.random.default_rng(0).integers(0, 255, (50, 9, 9)).astype(np.uint8)


@pytest.fixture(scope="module")
def inputs(tiny_job: Path) -> Inputs:
    listed = json.loads((tiny_job / "simulate" / "movies.json").read_text())
    return Inputs(tiny_config(tiny_job), [MovieEntry.model_validate(item) for item in listed])


@pytest.mark.slow
def test_the_source_gives_every_frame_once(inputs: Inputs, ray_cluster: None) -> None:
    regions = [whole(name, movie.shape) for name, movie in inputs.movies.items()]
    regions[0] = Region(regions[0].movie, 2, 11, 5, 9, 70, 101)
    ranges = frame_ranges(regions, [RANGE_BYTES // 5] * 3, 1)
    assert len(ranges) > 8  # a task has several
    import ray.data

    rows = ray.data.read_datasource(
        data.MovieDatasource(inputs.movies, ranges, [0, 1, 3, len(ranges)])
    ).take_all()
    assert sorted(row["part"] for row in rows) == [item.part for item in ranges]
    for row in rows:
        item = ranges[row["part"]]
        r = item.region
        expected = inputs.movies[r.movie].read(item.start, item.end)[:, r.top : r.bottom, r.left : r.right]
        assert np.array_equal(row["frames"], expected)


@pytest.mark.slow
def test_shards_are_the_same_bytes_as_without_ray_and_after_a_loss(
    inputs: Inputs, ray_cluster: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tapray.crops.ranges.RANGE_BYTES", 1 << 17)  # several parts a movie
    config, index = inputs.config.crops, inputs.index
    records = data.write_shards(inputs.movies, index, config, tmp_path / "ray", Reporter("quiet"))
    assert len(records) > 2 * len(inputs.movies)
    assert sum(record["crops"] for record in records) == len(index)
    for record in records:
        movie = inputs.movies[record["movie"]]
        frames = movie.read(record["start"], min(record["stop"] + config.delta, movie.shape[0]))
        own = index[(index.movie == movie.name) & index.t.between(record["start"], record["stop"] - 1)]
        size = record["stop"] - record["start"]
        write_shard(
            tmp_path / "one",
            record["part"],
            make_shard(frames, record["start"], size, movie.name, own, config),
        )

    def files(name: str) -> dict[str, bytes]:
        return {path.name: path.read_bytes() for path in (tmp_path / name).iterdir()}

    assert files("ray") == files("one")
    lost = sorted((tmp_path / "ray").glob("frames-*"))[1::2]
    for path in lost:
        path.unlink()
    kept = {path: path.stat().st_mtime_ns for path in (tmp_path / "ray").glob("frames-*")}
    assert data.write_shards(inputs.movies, index, config, tmp_path / "ray", Reporter("quiet")) == records
    assert files("ray") == files("one")
    assert {path: path.stat().st_mtime_ns for path in kept} == kept


@pytest.mark.slow
def test_movies_at_addresses_reach_the_workers(tmp_path: Path, ray_cluster: None) -> None:
    import ray.data

    np.save(tmp_path / "m.npy", FRAMES)
    movies = {"m": open_movie(UPath(f"file://{tmp_path}/m.npy"), "m")}
    ranges = frame_ranges([whole("m", FRAMES.shape)], [RANGE_BYTES // 10], 1)
    rows = ray.data.read_datasource(data.MovieDatasource(movies, ranges, [0, 1, len(ranges)])).take_all()
    for row in rows:
        item = ranges[row["part"]]
        assert np.array_equal(row["frames"], FRAMES[item.start : item.end])
    assert len(rows) == len(ranges) > 2


@pytest.mark.slow
def test_events_that_no_crop_holds_are_told(inputs: Inputs) -> None:
    known = sum((places.table["kind"] == "event").sum() for places in inputs.places.values())
    events = inputs.index[inputs.index["event_id"] >= 0]
    of_split = events.groupby("split").apply(lambda own: len(own[["movie", "event_id"]].drop_duplicates()))
    kept = int(of_split.sum())
    shares = ", ".join(f"{role} {of_split.get(role, 0)}" for role in ("train", "val", "test"))
    lost = f"; {known - kept} lie in no split or too near to its border" if known > kept else ""
    assert inputs.events_kept() == f"{kept} of {known} annotated events are in crops ({shares}){lost}"
    assert 0 < kept < known


@pytest.mark.slow
@pytest.mark.parametrize("frames_per_range", [1, 9])
def test_frames_never_pass_through_the_object_store(
    tmp_path: Path, ray_cluster: None, frames_per_range: int
) -> None:
    """Reading and working are one operator, however few or many the ranges are."""
    np.save(tmp_path / "m.npy", FRAMES)
    movies = {"m": open_movie(tmp_path / "m.npy", "m")}
    size = RANGE_BYTES // (frames_per_range + 1)
    ranges = frame_ranges([whole("m", FRAMES.shape)], [size], 1)
    rows = data.over_ranges(movies, ranges, lambda part, frames: {"part": part, "sum": int(frames.sum())})
    blocks = list(rows.iter_batches(batch_size=None))
    sums = {int(block["part"][0]): int(block["sum"][0]) for block in blocks}
    assert sums == {item.part: int(FRAMES[item.start : item.end].sum()) for item in ranges}
    assert len(blocks) == len(ranges)  # none was joined with another
    assert "ReadMovie->MapBatches(run)" in rows.stats()

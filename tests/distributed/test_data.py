"""Frame ranges: every frame once, the same files whatever the order, and nothing written twice."""

from __future__ import annotations

import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from upath import UPath

from tapray.config import MovieEntry
from tapray.console import Reporter
from tapray.crops.collect import Inputs
from tapray.crops.draw import Region
from tapray.crops.shards import make_shard, write_shard
from tapray.crops.splits import whole
from tapray.data.movies import Movie, open_movie
from tapray.distributed import data
from tests.conftest import tiny_config


@given(
    lengths=st.lists(st.integers(2, 50), min_size=1, max_size=4),
    sizes=st.integers(1, 1 << 28),
    delta=st.integers(1, 4),
)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_ranges_cover_every_region_once(lengths: list[int], sizes: int, delta: int) -> None:
    regions = [Region(str(i), 3, 3 + n, 0, 0, 9, 9) for i, n in enumerate(lengths)]
    ranges = data.frame_ranges(regions, [sizes] * len(regions), delta)
    assert [item.part for item in ranges] == list(range(len(ranges)))
    for region in regions:
        own = [item for item in ranges if item.region == region]
        frames = [t for item in own for t in range(item.start, item.stop)]
        assert frames == list(range(region.start, region.stop))
        assert all(item.end == min(item.stop + delta, region.stop) for item in own)
        assert all(
            (item.end - item.start) * sizes <= data.RANGE_BYTES or item.stop == item.start + 1 for item in own
        )


class Counted(Movie):
    """A movie that counts the frames that are read."""

    def read(self, start: int, stop: int) -> np.ndarray:
        read_frames.append(stop - start)
        return FRAMES[start:stop]


FRAMES = np.random.default_rng(0).integers(0, 255, (50, 9, 9)).astype(np.uint8)
read_frames: list[int] = []


@given(size=st.integers(1, 1 << 25), delta=st.integers(1, 5), skipped=st.sets(st.integers(0, 40), max_size=6))
@settings(max_examples=60, deadline=None, derandomize=True)
def test_a_task_reads_no_frame_twice(size: int, delta: int, skipped: set[int]) -> None:
    movie = Counted("m", Path("m"), FRAMES.shape, FRAMES.dtype, "npy", None, None)  # type: ignore[arg-type]
    regions = [Region("m", 0, 30, 0, 0, 9, 9), Region("m", 30, 50, 2, 1, 7, 8)]
    ranges = [item for item in data.frame_ranges(regions, [size] * 2, delta) if item.part not in skipped]
    read_frames.clear()
    seen = list(data.read_ranges({"m": movie}, ranges))
    assert [item for item, _ in seen] == ranges
    for item, frames in seen:
        r = item.region
        assert np.array_equal(frames, FRAMES[item.start : item.end, r.top : r.bottom, r.left : r.right])
    wanted = {(item.region, t) for item in ranges for t in range(item.start, item.end)}
    again = sum(
        max(0, before.end - after.start)
        for before, after in itertools.pairwise(ranges)
        if before.region == after.region and before.stop != after.start
    )
    assert sum(read_frames) <= len(wanted) + again


@pytest.fixture(scope="module")
def inputs(tiny_job: Path) -> Inputs:
    listed = json.loads((tiny_job / "simulate" / "movies.json").read_text())
    return Inputs(tiny_config(tiny_job), [MovieEntry.model_validate(item) for item in listed])


@pytest.mark.slow
def test_the_source_gives_every_frame_once(inputs: Inputs, ray_cluster: None) -> None:
    regions = [whole(name, movie.shape) for name, movie in inputs.movies.items()]
    regions[0] = Region(regions[0].movie, 2, 11, 5, 9, 70, 101)
    ranges = data.frame_ranges(regions, [data.RANGE_BYTES // 5] * 3, 1)
    assert len(ranges) > 8  # a task has several
    import ray.data

    rows = ray.data.read_datasource(data.MovieDatasource(inputs.movies, ranges, tasks=4)).take_all()
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
    monkeypatch.setattr(data, "RANGE_BYTES", 1 << 17)  # several parts a movie
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
    ranges = data.frame_ranges([whole("m", FRAMES.shape)], [data.RANGE_BYTES // 10], 1)
    rows = ray.data.read_datasource(data.MovieDatasource(movies, ranges, tasks=2)).take_all()
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
    tmp_path: Path, ray_cluster: None, frames_per_range: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Reading and working are one operator, however few or many the ranges are."""
    np.save(tmp_path / "m.npy", FRAMES)
    movies = {"m": open_movie(tmp_path / "m.npy", "m")}
    size = data.RANGE_BYTES // (frames_per_range + 1)
    ranges = data.frame_ranges([whole("m", FRAMES.shape)], [size], 1)
    monkeypatch.setattr(data, "TASKS_PER_CPU", 1)  # several ranges a task
    rows = data.over_ranges(movies, ranges, lambda part, frames: {"part": part, "sum": int(frames.sum())})
    blocks = list(rows.iter_batches(batch_size=None))
    sums = {int(block["part"][0]): int(block["sum"][0]) for block in blocks}
    assert sums == {item.part: int(FRAMES[item.start : item.end].sum()) for item in ranges}
    assert len(blocks) == len(ranges)  # none was joined with another
    assert "ReadMovie->MapBatches(run)" in rows.stats()

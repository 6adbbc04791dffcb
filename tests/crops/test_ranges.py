"""Frame ranges: every frame once, no frame read twice; tasks: every range once."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import pandas as pd
from hypothesis import given, settings
from hypothesis import strategies as st

from tapray.crops.draw import Region
from tapray.crops.ranges import RANGE_BYTES, frame_ranges, read_ranges, rows_of, task_cuts
from tapray.data.movies import Movie


@given(
    lengths=st.lists(st.integers(2, 50), min_size=1, max_size=4),
    sizes=st.integers(1, 1 << 28),
    delta=st.integers(1, 4),
)
@settings(max_examples=60)
def test_ranges_cover_every_region_once(lengths: list[int], sizes: int, delta: int) -> None:
    regions = [Region(str(i), 3, 3 + n, 0, 0, 9, 9) for i, n in enumerate(lengths)]
    ranges = frame_ranges(regions, [sizes] * len(regions), delta)
    assert [item.part for item in ranges] == list(range(len(ranges)))
    for region in regions:
        own = [item for item in ranges if item.region == region]
        frames = [t for item in own for t in range(item.start, item.stop)]
        assert frames == list(range(region.start, region.stop))
        assert all(item.end == min(item.stop + delta, region.stop) for item in own)
        assert all(
            (item.end - item.start) * sizes <= RANGE_BYTES or item.stop == item.start + 1 for item in own
        )


class Counted(Movie):
    """A movie that counts the frames that are read."""

    def read(self, start: int, stop: int) -> np.ndarray:
        read_frames.append(stop - start)
        return FRAMES[start:stop]


FRAMES = np.random.default_rng(0).integers(0, 255, (50, 9, 9)).astype(np.uint8)
read_frames: list[int] = []


@given(size=st.integers(1, 1 << 25), delta=st.integers(1, 5), skipped=st.sets(st.integers(0, 40), max_size=6))
@settings(max_examples=60)
def test_a_task_reads_no_frame_twice(size: int, delta: int, skipped: set[int]) -> None:
    movie = Counted("m", Path("m"), FRAMES.shape, FRAMES.dtype, "npy", None, None)  # type: ignore[arg-type]
    regions = [Region("m", 0, 30, 0, 0, 9, 9), Region("m", 30, 50, 2, 1, 7, 8)]
    ranges = [item for item in frame_ranges(regions, [size] * 2, delta) if item.part not in skipped]
    read_frames.clear()
    seen = list(read_ranges({"m": movie}, ranges))
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


@given(ranges=st.integers(1, 500), cpus=st.integers(1, 70))
@settings(max_examples=100)
def test_tasks_hold_every_range_once_and_end_with_short_ones(ranges: int, cpus: int) -> None:
    cuts = task_cuts(ranges, cpus)
    sizes = np.diff(cuts)
    assert (cuts[0], cuts[-1]) == (0, ranges)
    assert sizes.min() > 0
    assert len(sizes) <= 5 * cpus
    assert sizes.max() <= ranges / (2 * cpus) + 1
    assert sizes[-1] <= ranges / (16 * cpus) + 1


@given(counts=st.lists(st.integers(0, 5), min_size=1, max_size=40), size=st.integers(1, 1 << 27))
@settings(max_examples=60)
def test_every_crop_belongs_to_one_range(counts: list[int], size: int) -> None:
    """`counts` crops of each frame of one movie, as many in reverse of another, none of a third."""
    frames = np.arange(len(counts))
    times = {"a": np.repeat(frames, counts), "c": np.repeat(frames, counts[::-1])}
    index = pd.concat([pd.DataFrame({"movie": name, "t": t}) for name, t in times.items()], ignore_index=True)
    regions = [Region(name, 0, len(counts), 0, 0, 9, 9) for name in "cba"]
    ranges = frame_ranges(regions, [size] * 3, 1)
    rows = rows_of(index, ranges)
    assert sum(own.stop - own.start for own in rows) == len(index)
    for item, own in zip(ranges, rows, strict=True):
        crops = index.iloc[own]
        assert (crops["movie"] == item.region.movie).all()
        assert crops["t"].between(item.start, item.stop - 1).all()

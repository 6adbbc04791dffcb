"""Movies in ranges of frames, small enough to be held in memory one at a time, and ranges in tasks."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import CropConfig
from tapray.crops.draw import Region
from tapray.data.movies import Movie

RANGE_BYTES = 64 << 20  # of the frames and crops that a task holds; it takes about four times as much
# Of a core's ranges, task after task: few, since a core waits for 0.1 to 0.2 s between tasks, and short ones
# at the end, so that no core works on while the others have nothing left to do.
TASK_SHARES = (1 / 2, 1 / 4, 1 / 8, 1 / 16, 1 / 16)


@dataclass(frozen=True)
class FrameRange:
    """What is held at once: frames [start, stop) of a region, and those up to `end` which its pairs need."""

    part: int
    region: Region
    start: int
    stop: int
    end: int


def frame_ranges(regions: Iterable[Region], bytes_per_frame: Sequence[int], delta: int) -> list[FrameRange]:
    """Cuts regions into ranges of about RANGE_BYTES; they depend on the movies alone, not on the cluster.

    Args:
        bytes_per_frame: of each region, the bytes that a frame and its crops take in memory.
    """
    ranges: list[FrameRange] = []
    for region, size in zip(regions, bytes_per_frame, strict=True):
        step = max(1, RANGE_BYTES // max(size, 1) - delta)
        for start in range(region.start, region.stop, step):
            stop = min(start + step, region.stop)
            ranges.append(FrameRange(len(ranges), region, start, stop, min(stop + delta, region.stop)))
    return ranges


def task_cuts(ranges: int, cpus: int) -> list[int]:
    """Where one task ends and the next begins, from 0 to `ranges`; each gets at least one range."""
    shares = np.repeat(TASK_SHARES, cpus) / cpus
    ends = np.round(np.cumsum(shares) * ranges).astype(int)
    return [0, *np.unique(ends[ends > 0]).tolist()]


def bytes_per_frame(movie: Movie, crops: float, config: CropConfig) -> int:
    """Bytes that a frame takes in memory with so many crop pairs."""
    _, height, width = movie.shape
    pixels = (height * width + 2 * crops * config.size**2) * movie.channels
    return int(pixels * movie.dtype.itemsize)


def read_ranges(
    movies: Mapping[str, Movie], ranges: Iterable[FrameRange]
) -> Iterator[tuple[FrameRange, NDArray[Any]]]:
    """The frames (n, ..., h, w) of each range; those that it shares with the range before are read once."""
    before, kept = None, np.empty(0)
    for item in ranges:
        r, movie = item.region, movies[item.region.movie]
        follows = before is not None and before.region == r and before.stop == item.start
        first = before.end if follows and before else item.start
        frames = movie.read(first, item.end)[..., r.top : r.bottom, r.left : r.right]
        frames = np.concatenate([kept, frames]) if first > item.start else frames
        yield item, frames
        before, kept = item, frames[item.stop - item.start :].copy()


def rows_of(index: pd.DataFrame, ranges: Iterable[FrameRange]) -> list[slice]:
    """The crops of each range: rows of one movie and rising frames lie together."""
    times = {name: (int(own.index[0]), own["t"].to_numpy()) for name, own in index.groupby("movie")}
    found = []
    for item in ranges:
        first, frames = times.get(item.region.movie, (0, np.empty(0)))
        low, high = np.searchsorted(frames, (item.start, item.stop))
        found.append(slice(first + int(low), first + int(high)))
    return found

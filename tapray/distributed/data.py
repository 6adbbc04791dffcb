"""Ray Data: movies, frame range by frame range, into labelled shards and into pretraining's frames."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import ray
import ray.data
from numpy.typing import NDArray
from ray.data.block import BlockMetadata

from tapray.config import CropConfig, JobConfig, SamplerKind
from tapray.console import Reporter
from tapray.crops.draw import Region
from tapray.crops.shards import CUT_COLUMNS, ShardReader, frames_part, make_shard, tensor_column, write_shard
from tapray.crops.splits import whole
from tapray.data.movies import Movie
from tapray.pretrain import frames as store

RANGE_BYTES = 64 << 20  # of the frames and crops that a task holds; it takes about four times as much
TASKS_PER_CPU = 4  # a task goes through several ranges: between tasks a core waits for 0.1 to 0.2 s


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


class MovieDatasource(ray.data.Datasource):
    """Frames of movies, one row a range: part (int64), frames (n, h, w) as on disk.

    A task goes through consecutive ranges, one in memory at a time, so that memory does not grow with the
    length of a movie. How many tasks there are changes nothing of what they read.
    """

    def __init__(self, movies: Mapping[str, Movie], ranges: Sequence[FrameRange], tasks: int) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray has no type here
        self._movies, self._ranges, self._tasks = dict(movies), ranges, tasks

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all frames."""
        return sum(self._bytes(item) for item in self._ranges)

    def _bytes(self, item: FrameRange) -> int:
        r = item.region
        pixels = (item.end - item.start) * (r.bottom - r.top) * (r.right - r.left)
        return pixels * self._movies[r.movie].dtype.itemsize

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ray.data.ReadTask]:
        """As many tasks as were asked for, whatever the parallelism."""
        shared = ray.put(self._movies)  # once, not once a task
        cuts = np.linspace(0, len(self._ranges), self._tasks + 1).astype(int)
        groups = [self._ranges[first:last] for first, last in pairwise(cuts)]
        return [
            ray.data.ReadTask(
                _reader(shared, group), BlockMetadata(len(group), sum(map(self._bytes, group)), None)
            )
            for group in groups
        ]


def _reader(
    movies: ray.ObjectRef[dict[str, Movie]], ranges: Sequence[FrameRange]
) -> Callable[[], Iterator[pa.Table]]:
    def read() -> Iterator[pa.Table]:
        own: dict[str, Movie] = ray.get(movies)
        for item, frames in read_ranges(own, ranges):
            column = tensor_column(np.ascontiguousarray(frames).reshape(1, *frames.shape))
            yield pa.table({"part": pa.array([item.part]), "frames": column})

    return read


def read_ranges(
    movies: Mapping[str, Movie], ranges: Iterable[FrameRange]
) -> Iterator[tuple[FrameRange, NDArray[Any]]]:
    """The frames (n, h, w) of each range; those that it shares with the range before are read once."""
    before, kept = None, np.empty(0)
    for item in ranges:
        r, movie = item.region, movies[item.region.movie]
        follows = before is not None and before.region == r and before.stop == item.start
        first = before.end if follows and before else item.start
        frames = movie.read(first, item.end)[:, r.top : r.bottom, r.left : r.right]
        frames = np.concatenate([kept, frames]) if first > item.start else frames
        yield item, frames
        before, kept = item, frames[item.stop - item.start :].copy()


def over_ranges(
    movies: Mapping[str, Movie],
    ranges: Sequence[FrameRange],
    work: Callable[[int, NDArray[Any]], dict[str, Any]],
) -> ray.data.Dataset:
    """A row for each range, what `work` returns for its part and frames, in the order in which tasks end.

    Reading and working are one task (Ray Data fuses them), so frames never pass through the object
    store; the memory asked for keeps machines of many cores from starting too many.
    """

    def run(batch: dict[str, Any]) -> dict[str, Any]:
        records = [work(int(part), own) for part, own in zip(batch["part"], batch["frames"], strict=True)]
        return {key: np.array([record[key] for record in records]) for key in records[0]}

    needs = {"memory": 4 * RANGE_BYTES}
    cpus = ray.cluster_resources().get("CPU", 1)  # type: ignore[no-untyped-call]  # Ray has no type here
    tasks = min(int(TASKS_PER_CPU * cpus), len(ranges))
    source = MovieDatasource(movies, ranges, tasks)
    # Told of more blocks than tasks, Ray would split what is read, and then not fuse reading and working.
    frames = ray.data.read_datasource(source, override_num_blocks=tasks, **needs)
    mapped: ray.data.Dataset = frames.map_batches(run, batch_size=None, zero_copy_batch=True, **needs)
    mapped.context.target_max_block_size = (
        1  # else Ray gathers ranges, up to 128 MB, before they are worked on
    )
    return mapped


def write_shards(
    movies: Mapping[str, Movie], index: pd.DataFrame, config: CropConfig, folder: Path, reporter: Reporter
) -> list[dict[str, Any]]:
    """Cuts and writes every shard that is not there yet, in parallel over frame ranges.

    What a file holds depends on its frame range alone and it appears whole or not at all, so that any
    number of workers, and a run that was killed and started again, give the same bytes.

    Args:
        index: by movie and frame, in the order of `movies` or any other.

    Returns:
        One record per shard: part, movie, start, stop, crops, bytes.
    """
    regions = [whole(name, movie.shape) for name, movie in movies.items()]
    per_frame = index.groupby("movie").size() / pd.Series({name: m.shape[0] for name, m in movies.items()})
    ranges = frame_ranges(
        regions,
        [_bytes(movie, float(per_frame.get(name, 0)), config) for name, movie in movies.items()],
        config.delta,
    )
    rows = [_rows(index, item) for item in ranges]
    table = ray.put(index[CUT_COLUMNS])
    todo = [item for item in ranges if not frames_part(folder, item.part).exists()]

    def work(part: int, frames: NDArray[Any]) -> dict[str, Any]:
        item, crops = ranges[part], ray.get(table).iloc[rows[part]]
        own = item.stop - item.start
        write_shard(folder, part, make_shard(frames, item.start, own, item.region.movie, crops, config))
        return {"part": part}

    with reporter.task("crop pairs", len(index), "pair") as progress:
        waiting = {item.part for item in todo}
        progress.advance(sum(_count(rows[item.part]) for item in ranges if item.part not in waiting))
        for record in over_ranges(movies, todo, work).iter_rows() if todo else ():
            progress.advance(_count(rows[record["part"]]))
    reader = ShardReader(folder)
    return [
        {
            **{"part": item.part, "start": item.start, "stop": item.stop, "movie": item.region.movie},
            **{"crops": _count(rows[item.part]), "bytes": reader.size(item.part)},
        }
        for item in ranges
    ]


def _bytes(movie: Movie, crops: float, config: CropConfig) -> int:
    """Bytes of a frame with its crops."""
    _, height, width = movie.shape
    return int((height * width + 2 * crops * config.size**2) * movie.dtype.itemsize)


def _rows(index: pd.DataFrame, item: FrameRange) -> slice:
    """The crops of a range: rows of one movie and rising frames lie together."""
    inside = index["t"].between(item.start, item.stop - 1)
    own = np.flatnonzero((index["movie"] == item.region.movie) & inside)
    return slice(int(own[0]), int(own[-1]) + 1) if len(own) else slice(0, 0)


def _count(rows: slice) -> int:
    return int(rows.stop - rows.start)


def write_frames(
    movies: Mapping[str, Movie],
    samplers: Mapping[Region, Sequence[SamplerKind]],
    config: JobConfig,
    shards: Path,
    folder: Path,
    reporter: Reporter,
) -> None:
    """Decodes the frames of regions into `folder` with the weights of their samplers; see pretrain.frames.

    Every movie is read once, whatever the number of workers, epochs and nodes that share the folder.
    """
    regions, reader = list(samplers), ShardReader(shards)
    folders = {region: store.region_folder(folder, region) for region in regions}
    for region, target in folders.items():
        limits = reader.ranges(region.movie)[region.start : region.stop]
        store.create(target, region, movies[region.movie].dtype, limits, config)
    sizes = [(r.bottom - r.top) * (r.right - r.left) * 4 for r in regions]  # scores are made in float32
    ranges = frame_ranges(regions, sizes, config.crops.delta)

    def work(part: int, frames: NDArray[Any]) -> dict[str, Any]:
        item = ranges[part]
        first = item.start - item.region.start
        store.fill(folders[item.region], first, frames, item.stop - item.start, config)
        return {"frames": item.stop - item.start}

    with reporter.task("frames", sum(r.stop - r.start for r in regions), "frame") as progress:
        for record in over_ranges(movies, ranges, work).iter_rows():
            progress.advance(record["frames"])
    for region, kinds in samplers.items():
        for kind in kinds:
            store.weigh(folders[region], region, config, kind)

"""Ray Data: movies, frame range by frame range, into labelled shards and into pretraining's frames."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
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
from tapray.crops.ranges import (
    RANGE_BYTES,
    FrameRange,
    bytes_per_frame,
    frame_ranges,
    read_ranges,
    rows_of,
    task_cuts,
)
from tapray.crops.shards import CUT_COLUMNS, ShardReader, frames_part, make_shard, tensor_column, write_shard
from tapray.crops.splits import whole
from tapray.data.movies import Movie
from tapray.distributed.cluster import capacity
from tapray.pretrain import frames as store


class MovieDatasource(ray.data.Datasource):
    """Frames of movies, one row a range: part (int64), frames (n, h, w) as on disk.

    A task goes through consecutive ranges, one in memory at a time, so that memory does not grow with the
    length of a movie. How many tasks there are changes nothing of what they read.
    """

    def __init__(
        self, movies: Mapping[str, Movie], ranges: Sequence[FrameRange], cuts: Sequence[int]
    ) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # Ray has no type here
        self._movies, self._ranges, self._cuts = dict(movies), ranges, cuts

    def estimate_inmemory_data_size(self) -> int:
        """Bytes of all frames."""
        return sum(self._bytes(item) for item in self._ranges)

    def _bytes(self, item: FrameRange) -> int:
        r = item.region
        pixels = (item.end - item.start) * (r.bottom - r.top) * (r.right - r.left)
        movie = self._movies[r.movie]
        return pixels * movie.channels * movie.dtype.itemsize

    def get_read_tasks(
        self, parallelism: int, per_task_row_limit: int | None = None, data_context: Any = None
    ) -> list[ray.data.ReadTask]:
        """As many tasks as were asked for, whatever the parallelism."""
        shared = ray.put(self._movies)  # once, not once a task
        groups = [self._ranges[first:last] for first, last in pairwise(self._cuts)]
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
    cuts = task_cuts(len(ranges), max(1, int(capacity("CPU"))))
    source = MovieDatasource(movies, ranges, cuts)
    # Told of more blocks than tasks, Ray would split what is read, and then not fuse reading and working.
    frames = ray.data.read_datasource(source, override_num_blocks=len(cuts) - 1, **needs)
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
        [bytes_per_frame(movie, float(per_frame.get(name, 0)), config) for name, movie in movies.items()],
        config.delta,
    )
    rows = rows_of(index, ranges)
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
    size = ShardReader(folder).size
    return [_record(item, _count(rows[item.part]), size(item.part)) for item in ranges]


def _record(item: FrameRange, crops: int, size: int) -> dict[str, Any]:
    return {
        **{"part": item.part, "start": item.start, "stop": item.stop, "movie": item.region.movie},
        **{"crops": crops, "bytes": size},
    }


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
    areas = [(r.bottom - r.top) * (r.right - r.left) for r in regions]
    sizes = [4 * area * movies[r.movie].channels for r, area in zip(regions, areas, strict=True)]  # float32
    ranges = frame_ranges(regions, sizes, max(config.deltas))

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

"""Ray Data: movies into labelled shards, and frames for the pretraining workers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import ray.data
from numpy.typing import NDArray

from tapray.config import CropConfig
from tapray.console import Reporter
from tapray.crops.draw import Region
from tapray.crops.shards import FRAMES_PER_SHARD, make_shard, write_table
from tapray.data.movies import Movie


def write_shards(
    movies: list[Movie],
    index: pd.DataFrame,
    config: CropConfig,
    score_size: int,
    folder: Path,
    reporter: Reporter,
) -> list[dict[str, Any]]:
    """Cuts and writes every shard, in parallel over frame ranges.

    Each task reads only its frames and writes its own files whole or not at all; what a file
    holds depends on its frame range alone, so that any number of workers gives the same bytes.

    Returns:
        One record per shard: part, movie, start, stop, crops, bytes.
    """
    tasks: list[dict[str, Any]] = []
    for movie in movies:
        rows = index[index.movie == movie.name]
        for start in range(0, movie.shape[0], FRAMES_PER_SHARD):
            stop = min(start + FRAMES_PER_SHARD, movie.shape[0])
            crops = rows[(rows.t >= start) & (rows.t < stop)]
            tasks.append({"part": len(tasks), "movie": movie, "start": start, "stop": stop, "crops": crops})

    def write(row: dict[str, Any]) -> dict[str, Any]:
        task = tasks[row["id"]]
        crop_table, frame_table = make_shard(
            task["movie"], task["start"], task["stop"], task["crops"], config, score_size
        )
        size = write_table(frame_table, folder / f"frames-{task['part']:05d}.parquet")
        if len(crop_table):
            size += write_table(crop_table, folder / f"crops-{task['part']:05d}.parquet")
        facts = {key: task[key] for key in ("part", "start", "stop")}
        return {**facts, "movie": task["movie"].name, "crops": len(crop_table), "bytes": size}

    records = []
    dataset = ray.data.range(len(tasks), override_num_blocks=len(tasks)).map(write)
    with reporter.task("crop pairs", len(index), "pair") as progress:
        for record in dataset.iter_rows():
            progress.advance(record["crops"])
            records.append(record)
    return sorted(records, key=lambda record: int(record["part"]))


def frames_dataset(movies: dict[str, Movie], regions: list[Region]) -> ray.data.Dataset:
    """The frames that pretraining may see, one row each (region, t, frame), in the object store.

    Materialised, so that no CPU has to be left free while the training workers hold theirs,
    and each worker reads the same shared memory.
    """
    tasks = [
        (number, movies[region.movie], region, t, min(t + FRAMES_PER_SHARD, region.stop))
        for number, region in enumerate(regions)
        for t in range(region.start, region.stop, FRAMES_PER_SHARD)
    ]

    def read(row: dict[str, Any]) -> list[dict[str, Any]]:
        number, movie, region, start, stop = tasks[row["id"]]
        frames = movie.read(start, stop)[:, region.top : region.bottom, region.left : region.right]
        return [{"region": number, "t": start + i, "frame": frame} for i, frame in enumerate(frames)]

    lazy = ray.data.range(len(tasks), override_num_blocks=len(tasks)).flat_map(read)
    frames: ray.data.Dataset = lazy.materialize()
    return frames


def collect_frames(shard: Any, regions: list[Region]) -> list[NDArray[Any]]:
    """A worker's frames: (T, h, w) for each region, in frame order whatever the block order."""
    rows: list[dict[int, NDArray[Any]]] = [{} for _ in regions]
    for row in shard.iter_rows():
        rows[row["region"]][row["t"]] = row["frame"]
    return [np.stack([own[t] for t in sorted(own)]) for own in rows]

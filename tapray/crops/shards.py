"""Parquet shards: labelled crop pairs with tensor columns, and per-frame facts.

A shard folder holds index.parquet (one row per crop, no pixels), crops-*.parquet (pixels as
Arrow's fixed-shape tensors, in index order), frames-*.parquet (normalisation and score maps
of each frame pair) and manifest.json. Any Arrow reader opens them.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tapray.config import CropConfig
from tapray.crops.normalise import frame_ranges, normalise
from tapray.crops.samplers import Scores, score_pair
from tapray.data.movies import Movie

FRAMES_PER_SHARD = 16


def cut_crops(frames: NDArray[Any], crops: pd.DataFrame, first: int, size: int) -> NDArray[Any]:
    """Raw crop pairs (N, 2, size, size) of `crops` (t, delta, y, x); frames[0] is frame `first`."""
    windows = sliding_window_view(frames, (size, size), axis=(1, 2))
    cut: NDArray[Any] = windows[_times(crops) - first, crops[["y"]].to_numpy(), crops[["x"]].to_numpy()]
    return cut


def _times(crops: pd.DataFrame) -> NDArray[np.int64]:
    """(N, 2) the frames of each pair."""
    times: NDArray[np.int64] = crops[["t"]].to_numpy() + crops[["delta"]].to_numpy() * np.array([0, 1])
    return times


def make_shard(
    movie: Movie, start: int, stop: int, crops: pd.DataFrame, config: CropConfig, score_size: int
) -> tuple[pa.Table, pa.Table]:
    """The crops whose pair starts in frames [start, stop), and the facts of these frames.

    Args:
        crops: rows of the index, with crop_id, t, delta, y, x.
        score_size: side of the pretraining crops that the score maps are for.

    Returns:
        crops table (crop_id, ranges (2, 2), pixels (2, size, size)) and frames table (movie, t,
        low, high, scores (2, gy, gx); scores are null where the pair would leave the movie).
    """
    end = min(stop + config.delta, movie.shape[0])
    frames = movie.read(start, end)
    ranges = frame_ranges(frames, config.intensity)
    crop_table = pa.table(
        {
            "crop_id": pa.array(crops.crop_id.to_numpy()),
            "ranges": _tensor(ranges[_times(crops) - start]),
            "pixels": _tensor(cut_crops(frames, crops, start, config.size)),
        }
    )
    flat = normalise(frames, ranges, config.intensity)
    own = stop - start
    scores = [
        score_pair(flat[i], flat[i + config.delta], score_size).ravel()
        if i + config.delta < len(frames)
        else None
        for i in range(own)
    ]
    frame_table = pa.table(
        {
            "movie": pa.array([movie.name] * own),
            "t": pa.array(np.arange(start, stop)),
            "low": pa.array(ranges[:own, 0]),
            "high": pa.array(ranges[:own, 1]),
            "scores": pa.array(scores, type=pa.list_(pa.float32())),
        }
    )
    return crop_table, frame_table


def _tensor(values: NDArray[Any]) -> pa.ExtensionArray:
    """Fixed-shape tensors, one for each row; Arrow's own constructor refuses none at all."""
    if len(values):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
    return pa.ExtensionArray.from_storage(kind, pa.array([], type=kind.storage_type))


def write_table(table: pa.Table, path: Path) -> int:
    """Writes Parquet beside and renames; returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    pq.write_table(table, beside, compression="zstd", use_dictionary=False)
    beside.replace(path)
    return path.stat().st_size


@dataclass(frozen=True)
class ShardReader:
    """Reads a shard folder."""

    folder: Path

    def index(self) -> pd.DataFrame:
        """All crops in order; crop_id counts the rows."""
        index: pd.DataFrame = pq.read_table(self.folder / "index.parquet").to_pandas()
        return index

    def parts(self) -> list[Path]:
        """The files of crops, in order."""
        return sorted(self.folder.glob("crops-*.parquet"))

    def read_part(self, path: Path, intensity: str) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        """crop_id (n,) and normalised crop pairs (n, 2, size, size) of one file that holds any."""
        table = pq.read_table(path).combine_chunks()
        pixels, ranges = (table[name].chunk(0).to_numpy_ndarray() for name in ("pixels", "ranges"))
        return table["crop_id"].to_numpy(), normalise(pixels, ranges, intensity)

    def ranges(self, movie: str) -> NDArray[np.float32]:
        """(T, 2) low and high percentile of each frame of a movie."""
        table = self._frames(movie)
        return np.stack([table["low"].to_numpy(), table["high"].to_numpy()], axis=1)

    def scores(self, movie: str, grid: tuple[int, int]) -> Scores:
        """Score maps of the frame pairs of a movie, over the candidate places of whole frames."""
        rows = self._frames(movie)["scores"].drop_null()
        both = np.stack(rows.to_numpy(zero_copy_only=False)).reshape(len(rows), 2, *grid)
        return Scores(change=both[:, 0], brightness=both[:, 1])

    def _frames(self, movie: str) -> pa.Table:
        paths = sorted(self.folder.glob("frames-*.parquet"))
        table = pa.concat_tables([pq.read_table(path, filters=[("movie", "=", movie)]) for path in paths])
        return table.sort_by("t")

"""Parquet shards: labelled crop pairs with tensor columns, and per-frame facts.

A shard folder holds index.parquet (one row per crop, no pixels), crops-*.parquet (pixels as
Arrow's fixed-shape tensors, in index order), frames-*.parquet (each frame's normalisation) and
manifest.json. Any Arrow reader opens them.
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

CUT_COLUMNS = ["crop_id", "t", "delta", "y", "x"]  # of the index: what cutting needs


def cut_crops(frames: NDArray[Any], crops: pd.DataFrame, first: int, size: int) -> NDArray[Any]:
    """Raw crop pairs (N, 2, ..., size, size) of `crops` (t, delta, y, x); frames[0] is frame `first`."""
    windows = sliding_window_view(frames, (size, size), axis=(-2, -1))
    channels = [slice(None)] * (frames.ndim - 3)
    at: Any = (_times(crops) - first, *channels, crops[["y"]].to_numpy(), crops[["x"]].to_numpy())
    cut: NDArray[Any] = windows[at]
    return cut


def _times(crops: pd.DataFrame) -> NDArray[np.int64]:
    """(N, 2) the frames of each pair."""
    times: NDArray[np.int64] = crops[["t"]].to_numpy() + crops[["delta"]].to_numpy() * np.array([0, 1])
    return times


def make_shard(
    frames: NDArray[Any], first: int, own: int, movie: str, crops: pd.DataFrame, config: CropConfig
) -> tuple[pa.Table, pa.Table]:
    """The crops whose pair starts in frames [first, first + own), and the facts of these frames.

    Args:
        frames: (n, H, W) or (n, C, H, W), the own frames and the up to delta frames after them.
        crops: rows of the index, with crop_id, t, delta, y, x.

    Returns:
        crops table (crop_id, ranges (2, 2), pixels (2, size, size)) and frames table (movie, t,
        low, high); of several channels ranges (2, C, 2), pixels (2, C, size, size), low and high (C,).
    """
    ranges = frame_ranges(frames, config.intensity)
    crop_table = pa.table(
        {
            "crop_id": pa.array(crops.crop_id.to_numpy()),
            "ranges": tensor_column(ranges[_times(crops) - first]),
            "pixels": tensor_column(cut_crops(frames, crops, first, config.size)),
        }
    )
    frame_table = pa.table(
        {
            "movie": pa.array([movie] * own),
            "t": pa.array(np.arange(first, first + own)),
            "low": _column(ranges[:own, ..., 0]),
            "high": _column(ranges[:own, ..., 1]),
        }
    )
    return crop_table, frame_table


def _column(values: NDArray[Any]) -> pa.Array:
    return pa.array(values) if values.ndim == 1 else tensor_column(values)


def tensor_column(values: NDArray[Any]) -> pa.ExtensionArray:
    """Fixed-shape tensors, one for each row; Arrow's own constructor refuses none at all."""
    if len(values):
        return pa.FixedShapeTensorArray.from_numpy_ndarray(np.ascontiguousarray(values))
    kind = pa.fixed_shape_tensor(pa.from_numpy_dtype(values.dtype), values.shape[1:])
    return pa.ExtensionArray.from_storage(kind, pa.array([], type=kind.storage_type))


def _values(array: pa.Array) -> NDArray[Any]:
    tensor = isinstance(array, pa.FixedShapeTensorArray)
    values: NDArray[Any] = array.to_numpy_ndarray() if tensor else array.to_numpy()
    return values


def write_table(table: pa.Table, path: Path) -> int:
    """Writes Parquet beside and renames; returns the bytes written."""
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.{os.getpid()}")
    # Parquet holds 16 bit as 32: with its bytes split, images are half as large and twice as fast.
    tensors = [f.name + ".list.element" for f in table.schema if isinstance(f.type, pa.FixedShapeTensorType)]
    pq.write_table(table, beside, compression="zstd", use_dictionary=False, use_byte_stream_split=tensors)
    beside.replace(path)
    return path.stat().st_size


def write_shard(folder: Path, part: int, tables: tuple[pa.Table, pa.Table]) -> None:
    """Writes the crops and frames tables of a part; where the latter is there, the part is whole."""
    crops, frames = tables
    if len(crops):
        write_table(crops, crops_part(folder, part))
    write_table(frames, frames_part(folder, part))


def crops_part(folder: Path, part: int) -> Path:
    """The file of a part's crops; there is none where it has no crops."""
    return folder / f"crops-{part:05d}.parquet"


def frames_part(folder: Path, part: int) -> Path:
    """The file of a part's per-frame facts."""
    return folder / f"frames-{part:05d}.parquet"


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

    def size(self, part: int) -> int:
        """Bytes on disk of a part."""
        paths = (crops_part(self.folder, part), frames_part(self.folder, part))
        return sum(path.stat().st_size for path in paths if path.exists())

    def ranges(self, movie: str) -> NDArray[np.float32]:
        """(T, 2) or (T, C, 2), low and high percentile of each frame of a movie."""
        paths = sorted(self.folder.glob("frames-*.parquet"))
        parts = [pq.read_table(path, filters=[("movie", "=", movie)]) for path in paths]
        table = pa.concat_tables(parts).combine_chunks()
        order = np.argsort(table["t"].to_numpy())  # Arrow does not sort tensors
        low, high = (_values(table[name].chunk(0)) for name in ("low", "high"))
        return np.stack([low, high], axis=-1)[order]

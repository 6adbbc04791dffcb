"""The frames that pretraining draws from, decoded once into files that every worker maps.

A region's folder holds frames.npy (T, h, w) in the movie's own dtype, ranges.npy (T, 2) float32,
scores.npy (P, 2, gy, gx) float32 (see samplers.score_pair) and, per sampler, pairs-NAME.npy and
places-NAME.npy (see draw.Source). Mapped files let a movie be larger than memory: the operating
system keeps what is drawn, and workers of one machine share it.
"""

from __future__ import annotations

from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import CropStream, Region, Source
from tapray.crops.normalise import normalise
from tapray.crops.samplers import grid_shape, pair_weights, score_pair, smooth


def create(
    folder: Path, region: Region, dtype: np.dtype[Any], ranges: NDArray[np.float32], config: JobConfig
) -> None:
    """Empty files for a region whose frames are of that dtype.

    Args:
        ranges: (T, 2) percentiles of the region's frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_frames, height, width = len(ranges), region.bottom - region.top, region.right - region.left
    n_pairs, grid = n_frames - config.crops.delta, grid_shape(height, width, config.pretrain.size)
    open_memmap(folder / "frames.npy", "w+", dtype, (n_frames, height, width))
    open_memmap(folder / "scores.npy", "w+", np.float32, (n_pairs, 2, *grid))
    np.save(folder / "ranges.npy", ranges)


def fill(folder: Path, first: int, frames: NDArray[Any], own: int, config: JobConfig) -> None:
    """Writes `own` frames of a region from its frame `first` on, and the scores of the pairs they begin.

    Calls for other frames may run at the same time, on any machine that shares the folder.

    Args:
        frames: (n, h, w), the own frames and up to delta more.
    """
    size, delta, intensity = config.pretrain.size, config.crops.delta, config.crops.intensity
    _write(folder / "frames.npy", first, frames[:own])
    ranges = np.load(folder / "ranges.npy")[first : first + len(frames)]
    smoothed = deque[NDArray[np.float32]](maxlen=delta + 1)
    scores = []
    for frame, limits in zip(frames, ranges, strict=True):
        smoothed.append(smooth(normalise(frame, limits, intensity)))
        if len(smoothed) > delta:
            scores.append(score_pair(smoothed[0], smoothed[-1], size))
    if scores:
        _write(folder / "scores.npy", first, np.stack(scores))


def _write(path: Path, first: int, rows: NDArray[Any]) -> None:
    """Rows of an array file from `first` on, as bytes: maps of a network file system share whole pages."""
    array = np.load(path, mmap_mode="r")
    with path.open("r+b") as file:
        file.seek(array.offset + first * (array.nbytes // len(array)))
        file.write(np.ascontiguousarray(rows, array.dtype).data)


def weigh(folder: Path, region: Region, config: JobConfig, kind: SamplerKind) -> None:
    """Writes the drawing weights of a filled region for a sampler, a frame pair at a time."""
    scores = np.load(folder / "scores.npy", mmap_mode="r")
    tiles = (region.bottom - region.top) * (region.right - region.left) / config.pretrain.size**2
    shape = (len(scores), scores[0, 0].size)
    path = folder / f"places-{kind}.npy"
    open_memmap(path, "w+", np.float32, shape)
    totals = np.empty(len(scores))
    for pair, weights in enumerate(pair_weights(scores, kind, config.pretrain.sharpness * tiles)):
        rising = np.cumsum(weights)
        totals[pair] = rising[-1]
        _write(path, pair, rising[None] / max(float(rising[-1]), np.finfo(np.float64).tiny))
    shares = np.cumsum(totals)
    np.save(folder / f"pairs-{kind}.npy", shares / shares[-1])


def open_source(folder: Path, region: Region, config: JobConfig, kind: SamplerKind) -> Source:
    """The region's frames and drawing weights, mapped from its folder."""
    mapped = {
        name: np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))
        for name in ("frames", "ranges", f"pairs-{kind}", f"places-{kind}")
    }
    grid = grid_shape(region.bottom - region.top, region.right - region.left, config.pretrain.size)
    return Source(
        region,
        mapped["frames"],
        mapped["ranges"],
        mapped[f"pairs-{kind}"],
        mapped[f"places-{kind}"],
        grid,
    )


def open_stream(
    store: Path, regions: list[Region], config: JobConfig, kind: SamplerKind, seed: int
) -> CropStream:
    """The crop stream of some regions, whose folders in `store` are named by `region_folder`."""
    sources = [open_source(region_folder(store, region), region, config, kind) for region in regions]
    return CropStream(sources, config.pretrain.size, config.crops.delta, config.crops.intensity, seed)


def region_folder(store: Path, region: Region) -> Path:
    """Where the files of a region lie: named by what it covers."""
    r = region
    return store / f"{r.movie}-t{r.start}-{r.stop}-y{r.top}-{r.bottom}-x{r.left}-{r.right}"

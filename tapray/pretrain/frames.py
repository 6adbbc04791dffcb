"""The frames that pretraining draws from, decoded once into files that every worker maps.

A region's folder holds frames.npy (T, h, w) in the movie's own dtype, ranges.npy (T, 2) float32 (of
several channels (T, C, h, w) and (T, C, 2)) and, per delta D, scores-D.npy (P, 2, gy, gx) float32 (see
samplers.score_pair) and, per sampler, pairs-D-NAME.npy and places-D-NAME.npy (see draw.Source). Mapped
files let a movie be larger than memory: the operating system keeps what is drawn, and workers of one
machine share it.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from numpy.lib.format import open_memmap
from numpy.typing import NDArray

from tapray.arrays import write_rows
from tapray.config import JobConfig, SamplerKind
from tapray.crops.draw import CropStream, Region, Source
from tapray.crops.normalise import normalise
from tapray.crops.samplers import grid_shape, pair_weights, score_pair, smooth


def create(
    folder: Path, region: Region, dtype: np.dtype[Any], ranges: NDArray[np.float32], config: JobConfig
) -> None:
    """Empty files for a region whose frames are of that dtype.

    Args:
        ranges: (T, 2) or (T, C, 2) percentiles of the region's frames.
    """
    folder.mkdir(parents=True, exist_ok=True)
    n_frames, height, width = len(ranges), region.bottom - region.top, region.right - region.left
    grid = grid_shape(height, width, config.pretrain.size)
    open_memmap(folder / "frames.npy", "w+", dtype, (*ranges.shape[:-1], height, width))
    for delta in config.deltas:
        open_memmap(folder / f"scores-{delta}.npy", "w+", np.float32, (n_frames - delta, 2, *grid))
    np.save(folder / "ranges.npy", ranges)


def fill(folder: Path, first: int, frames: NDArray[Any], own: int, config: JobConfig) -> None:
    """Writes `own` frames of a region from its frame `first` on, and the scores of the pairs they begin.

    Calls for other frames may run at the same time, on any machine that shares the folder.

    Args:
        frames: (n, ..., h, w), the own frames and as many more as the largest delta, while there are any.
    """
    size, intensity = config.pretrain.size, config.crops.intensity
    write_rows(folder / "frames.npy", first, frames[:own])
    ranges = np.load(folder / "ranges.npy")[first : first + len(frames)]
    smoothed = deque[NDArray[np.float32]](maxlen=max(config.deltas) + 1)
    scores: dict[int, list[NDArray[np.float32]]] = {delta: [] for delta in config.deltas}
    for number, (frame, limits) in enumerate(zip(frames, ranges, strict=True)):
        smoothed.append(smooth(normalise(frame, limits, intensity)))
        for delta, found in scores.items():
            if 0 <= number - delta < own:
                found.append(score_pair(smoothed[-1 - delta], smoothed[-1], size))
    for delta, found in scores.items():
        if found:
            write_rows(folder / f"scores-{delta}.npy", first, np.stack(found))


@dataclass(frozen=True)
class _Sequences:
    """Scores (2, gy, gx) of sequences of frames: the mean over their frame pairs."""

    pairs: NDArray[np.float32]  # (P, 2, gy, gx), of frames `delta` apart
    delta: int
    frames: int

    def __len__(self) -> int:
        return len(self.pairs) - self.delta * (self.frames - 2)

    def __getitem__(self, first: int) -> NDArray[np.float32]:
        last = first + self.delta * (self.frames - 2)
        mean: NDArray[np.float32] = self.pairs[first : last + 1 : self.delta].mean(axis=0)
        return mean


def weigh(folder: Path, region: Region, config: JobConfig, kind: SamplerKind) -> None:
    """Writes the drawing weights of a filled region for a sampler, a sequence of frames at a time."""
    tiles = (region.bottom - region.top) * (region.right - region.left) / config.pretrain.size**2
    for delta in config.deltas:
        pairs = np.load(folder / f"scores-{delta}.npy", mmap_mode="r")
        scores = _Sequences(pairs, delta, config.pretrain.frames)
        path = folder / f"places-{delta}-{kind}.npy"
        open_memmap(path, "w+", np.float32, (len(scores), pairs[0, 0].size))
        totals = np.empty(len(scores))
        for number, weights in enumerate(pair_weights(scores, kind, config.pretrain.sharpness * tiles)):
            rising = np.cumsum(weights)
            totals[number] = rising[-1]
            write_rows(path, number, rising[None] / max(float(rising[-1]), np.finfo(np.float64).tiny))
        shares = np.cumsum(totals)
        np.save(folder / f"pairs-{delta}-{kind}.npy", shares / shares[-1])


def open_sources(folder: Path, region: Region, config: JobConfig, kind: SamplerKind) -> list[Source]:
    """The region's frames and drawing weights, mapped from its folder: a source for each delta."""

    def mapped(name: str) -> NDArray[Any]:
        return np.asarray(np.load(folder / f"{name}.npy", mmap_mode="r"))

    grid = grid_shape(region.bottom - region.top, region.right - region.left, config.pretrain.size)
    frames, ranges = mapped("frames"), mapped("ranges")
    found = []
    for delta in config.deltas:
        pairs, places = (mapped(f"{name}-{delta}-{kind}") for name in ("pairs", "places"))
        found.append(Source(region, delta, frames, ranges, pairs, places, grid))
    return found


def open_stream(
    store: Path, regions: list[Region], config: JobConfig, kind: SamplerKind, seed: int
) -> CropStream:
    """The crop stream of some regions, whose folders in `store` are named by `region_folder`."""
    found = [open_sources(region_folder(store, region), region, config, kind) for region in regions]
    sources, settings = list(chain.from_iterable(found)), config.pretrain
    return CropStream(sources, settings.size, settings.frames, config.crops.intensity, seed)


def region_folder(store: Path, region: Region) -> Path:
    """Where the files of a region lie: named by what it covers."""
    r = region
    return store / f"{r.movie}-t{r.start}-{r.stop}-y{r.top}-{r.bottom}-x{r.left}-{r.right}"

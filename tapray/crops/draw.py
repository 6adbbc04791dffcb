"""Drawing and cutting pretraining crops, whole batches at once.

Which crops a step sees is a pure function of (seed, epoch, step): every worker draws the
random numbers of the same global batch and finds the crops of its own slice, so that neither the
number of workers nor an iterator's state changes what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tapray.crops.samplers import STRIDE

FEW = 64  # crops cut at a time: what lies between their frames and the batch stays in the processor's cache


@dataclass(frozen=True)
class Region:
    """The part of one movie that may be seen: frames [start, stop), and a rectangle."""

    movie: str
    start: int
    stop: int
    top: int
    left: int
    bottom: int
    right: int

    def holds(self, t: NDArray[Any], y: NDArray[Any], x: NDArray[Any]) -> NDArray[np.bool_]:
        """(n,) whether these places lie in it."""
        rows, columns = (y >= self.top) & (y < self.bottom), (x >= self.left) & (x < self.right)
        inside: NDArray[np.bool_] = (t >= self.start) & (t < self.stop) & rows & columns
        return inside


@dataclass(frozen=True)
class Source:
    """One movie's frames within a region, with drawing weights for its P sequences of frames, delta apart.

    All arrays may be memory maps of files, so that a movie need not fit into memory.

    frames: (T, H, W) or (T, C, H, W) raw pixels of the region; ranges: (T, 2) or (T, C, 2)
    percentiles of the whole frames;
    pairs: (P,) rising up to 1, the share of the weight up to and with each sequence;
    places: (P, gy * gx) float32, rising up to 1 within each sequence, likewise by place.
    """

    region: Region
    delta: int
    frames: NDArray[np.generic]
    ranges: NDArray[np.float32]
    pairs: NDArray[np.float64]
    places: NDArray[np.float32]
    grid: tuple[int, int]


class CropStream:
    """Crops for pretraining from several movies, each of S frames, addressed by (epoch, step)."""

    def __init__(self, sources: list[Source], size: int, frames: int, intensity: str, seed: int) -> None:
        self.sources = sources
        self.size, self.frames, self.intensity, self.seed = size, frames, intensity, seed
        pairs = np.array([len(source.pairs) for source in sources])
        self._share = np.cumsum(pairs) / pairs.sum()  # longer movies are drawn from more

    def positions(
        self, epoch: int, step: int, batch: int, rank: int = 0, world: int = 1
    ) -> NDArray[np.int64]:
        """(b, 4): source, t, y, x (within the source) of one worker's share of a step's global batch."""
        rng = np.random.default_rng([self.seed, epoch, step])
        where, u = rng.random(batch), rng.random(batch)
        shift = rng.integers(-(STRIDE // 2), STRIDE // 2, size=(batch, 2))
        where, u, shift = where[rank::world], u[rank::world], shift[rank::world]
        source = np.searchsorted(self._share, where, side="right")
        out = np.empty((len(u), 4), dtype=np.int64)
        for index in np.unique(source):
            rows = np.flatnonzero(source == index)
            src = self.sources[index]
            t, place = _draw(src, u[rows])
            corner = np.stack(np.unravel_index(place, src.grid), axis=1) * STRIDE + shift[rows]
            corner = np.clip(corner, 0, np.array(src.frames.shape[-2:]) - self.size)
            out[rows] = np.column_stack([source[rows], t, corner])
        return out

    def cut(self, positions: NDArray[np.int64]) -> tuple[NDArray[np.generic], NDArray[np.float32]]:
        """Raw crops at `positions` (B, 4), in the movies' dtype, and what they are to be normalised by.

        Returns:
            (B, S, size, size) or (B, S, C, size, size), and percentiles (B, S, 2) or (B, S, C, 2).
        """
        channels = self.sources[0].frames.shape[1:-2]
        dtype = np.result_type(*(source.frames.dtype for source in self.sources)).newbyteorder("=")
        raw = np.empty((len(positions), self.frames, *channels, self.size, self.size), dtype)
        ranges = np.empty((*raw.shape[:-2], 2), np.float32)
        for index in np.unique(positions[:, 0]):
            src, own = self.sources[index], np.flatnonzero(positions[:, 0] == index)
            windows = sliding_window_view(src.frames, (self.size, self.size), axis=(-2, -1))
            every = [slice(None)] * len(channels)
            for rows in np.array_split(own, -(-len(own) // FEW)):
                t = positions[rows, 1, None] + src.delta * np.arange(self.frames)
                raw[rows] = windows[(t, *every, positions[rows, 2, None], positions[rows, 3, None])]
                ranges[rows] = src.ranges[t]
        return raw, ranges


def _draw(source: Source, u: NDArray[np.float64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Frame pairs and places (n,) for numbers u (n,) in [0, 1): two binary searches."""
    pair = np.searchsorted(source.pairs, u, side="right")
    before = np.where(pair > 0, source.pairs[pair - 1], 0.0)
    rest = np.minimum((u - before) / (source.pairs[pair] - before), np.nextafter(1, 0))
    low, high = np.zeros_like(pair), np.full_like(pair, source.places.shape[1] - 1)
    while (low < high).any():
        middle = (low + high) // 2
        above = source.places[pair, middle] <= rest
        low, high = np.where(above, middle + 1, low), np.where(above, high, middle)
    return pair, low

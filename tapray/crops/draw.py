"""Drawing and cutting pretraining crops, whole batches at once.

Which crops a step sees is a pure function of (seed, epoch, step): every worker computes
the same global batch and takes its own slice, so that neither the number of workers nor
an iterator's state changes what is seen.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from tapray.crops.normalise import normalise
from tapray.crops.samplers import STRIDE


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


@dataclass(frozen=True)
class Source:
    """One movie's frames within a region, with drawing weights for its frame pairs.

    frames: (T, H, W) raw pixels of the region; ranges: (T, 2) percentiles of the whole frames;
    cumulative: (P * gy * gx,) cumulative weights over all places of all P = T - delta frame pairs,
    up to 1, so that one binary search draws pair and place.
    """

    region: Region
    frames: NDArray[np.generic]
    ranges: NDArray[np.float32]
    cumulative: NDArray[np.float64]
    grid: tuple[int, int]
    offset: tuple[int, int]  # of the first candidate place within the region
    n_pairs: int


def make_source(
    region: Region,
    frames: NDArray[np.generic],
    ranges: NDArray[np.float32],
    place_weights: NDArray[np.float64],
    offset: tuple[int, int] = (0, 0),
) -> Source:
    """A source that draws places by weight.

    Args:
        place_weights: (P, gy, gx), at least 0 and not all 0, over candidate places STRIDE px
            apart; the first lies `offset` px from the region's top-left pixel.
    """
    n_pairs, gy, gx = place_weights.shape
    rising = np.cumsum(place_weights)
    return Source(region, frames, ranges, rising / rising[-1], (gy, gx), offset, n_pairs)


class CropStream:
    """Crop pairs for pretraining from several movies, addressed by (epoch, step)."""

    def __init__(self, sources: list[Source], size: int, delta: int, intensity: str, seed: int) -> None:
        self.sources = sources
        self.size, self.delta, self.intensity, self.seed = size, delta, intensity, seed
        pairs = np.array([source.n_pairs for source in sources])
        self._share = np.cumsum(pairs) / pairs.sum()  # longer movies are drawn from more

    def places(self, epoch: int, step: int, batch: int) -> NDArray[np.int64]:
        """(batch, 4): source, t, y, x (within the source) of a step's global batch."""
        rng = np.random.default_rng([self.seed, epoch, step])
        source = np.searchsorted(self._share, rng.random(batch), side="right")
        u = rng.random(batch)
        shift = rng.integers(-(STRIDE // 2), STRIDE // 2, size=(batch, 2))
        out = np.empty((batch, 4), dtype=np.int64)
        for index in np.unique(source):
            rows = np.flatnonzero(source == index)
            src = self.sources[index]
            place = np.searchsorted(src.cumulative, u[rows], side="right")
            t, y, x = np.unravel_index(place, (src.n_pairs, *src.grid))
            corner = np.stack([y, x], axis=1) * STRIDE + src.offset + shift[rows]
            corner = np.clip(corner, 0, np.array(src.frames.shape[1:]) - self.size)
            out[rows] = np.column_stack([source[rows], t, corner])
        return out

    def cut(self, places: NDArray[np.int64]) -> NDArray[np.float32]:
        """Normalised crop pairs (B, 2, size, size) float32 at `places` (B, 4)."""
        out = np.empty((len(places), 2, self.size, self.size), dtype=np.float32)
        for index in np.unique(places[:, 0]):
            rows = np.flatnonzero(places[:, 0] == index)
            src = self.sources[index]
            windows = sliding_window_view(src.frames, (self.size, self.size), axis=(1, 2))
            t = places[rows, 1, None] + np.array([0, self.delta])
            raw = windows[t, places[rows, 2, None], places[rows, 3, None]]
            out[rows] = normalise(raw, src.ranges[t], self.intensity)
        return out

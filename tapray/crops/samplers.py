"""Where pretraining crops are drawn: weights per place, computed once per frame pair.

A sampler is added here: one value per place, and the weight of a place by its quantile among
all values. Drawing then costs two binary searches per crop, whatever the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter

from tapray.config import SamplerKind

STRIDE = 8  # pixels between candidate places
SAMPLE = 1 << 20  # values that quantiles are taken among; movies up to this size are ranked exactly


def grid_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Number of candidate places along y and x."""
    return (height - size) // STRIDE + 1, (width - size) // STRIDE + 1


def smooth(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    """A normalised frame (..., H, W) without noise and sub-pixel drift, as `score_pair` compares it."""
    out: NDArray[np.float32] = gaussian_filter(frame, 2.0, mode="nearest", axes=(-2, -1))
    return out


def score_pair(first: NDArray[np.float32], second: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Label-free scores of every candidate crop of one frame pair.

    Change is the mean squared difference within the central two thirds of the crop, so that
    what changes is not cut off at its border, of frames with mean 0 and spread 1 (bleaching, lamp
    flicker). Of several channels it is the mean over them. Both scores are the same whichever frame comes
    first: else where crops are drawn would tell the arrow.

    Args:
        first, second: (H, W) or (C, H, W) normalised frames, smoothed by `smooth`.

    Returns:
        (2, gy, gx) float32: change and brightness; place (i, j) is the crop whose top-left pixel
        is (i * STRIDE, j * STRIDE).
    """
    if first.ndim == 3:
        each = [score_pair(a, b, size) for a, b in zip(first, second, strict=True)]
        mean: NDArray[np.float32] = np.mean(each, axis=0)
        return mean
    change = (_standard(second) - _standard(first)) ** 2
    return np.stack([_inner_mean(change, size), _inner_mean((first + second) / 2, size)])


def _standard(frame: NDArray[np.float32]) -> NDArray[np.float32]:
    out: NDArray[np.float32] = (frame - frame.mean()) / max(float(frame.std()), 1e-6)
    return out


def _inner_mean(image: NDArray[np.floating[Any]], size: int) -> NDArray[np.float32]:
    """(gy, gx) mean over the central two thirds of each candidate crop."""
    half = size // 2
    mean: NDArray[np.float32] = uniform_filter(image, 2 * size // 3, mode="nearest")
    gy, gx = grid_shape(image.shape[0], image.shape[1], size)
    return mean[half : half + gy * STRIDE : STRIDE, half : half + gx * STRIDE : STRIDE]


@dataclass(frozen=True)
class Ranks:
    """Quantiles of values among those of a whole region."""

    ordered: NDArray[np.float32]  # (n,)

    def __call__(self, values: NDArray[np.float32]) -> NDArray[np.float64]:
        """Of each value, in (0, 1); equal values share one."""
        low, high = (np.searchsorted(self.ordered, values, side) for side in ("left", "right"))
        out: NDArray[np.float64] = (low + high) / (2 * len(self.ordered))
        return out


class Scores(Protocol):
    """Scores (2, gy, gx) of frame pairs, or of longer sequences of frames, by number."""

    def __len__(self) -> int: ...

    def __getitem__(self, number: int, /) -> NDArray[np.float32]: ...


def pair_weights(scores: Scores, kind: SamplerKind, candidates: float) -> Iterator[NDArray[np.float64]]:
    """Drawing weights (gy * gx,) of the places of each frame pair of a region, pair after pair.

    - uniform: all places alike.
    - foreground: places whose brightness is not below the median (rejects empty ground).
    - change: the density of the best of `candidates` uniform draws, k q^(k-1) with q the
      quantile of the place's change over the median change of its frame pair. A focus jump or
      a flash changes a whole frame, its median too, and so does not draw the crops to it.

    Args:
        scores: of P frame pairs, may lie on disk: one pair at a time is in memory. Quantiles are
            those among at most about SAMPLE places, of frame pairs at equal distances in time.
    """
    every = max(1, len(scores) * scores[0][0].size // SAMPLE)
    sample = [_values(scores[pair], kind).ravel() for pair in range(0, len(scores), every)]
    ranks = Ranks(np.sort(np.concatenate(sample)))
    top = float(ranks(ranks.ordered[-1:])[0])
    for pair in range(len(scores)):
        values = _values(scores[pair], kind).ravel()
        if kind is SamplerKind.UNIFORM:
            yield np.ones(len(values))
        elif kind is SamplerKind.FOREGROUND:
            yield (ranks(values) >= 0.5).astype(np.float64)
        else:
            yield (ranks(values) / top) ** max(candidates - 1, 0)  # over the largest: never all 0


def _values(scores: NDArray[np.floating[Any]], kind: SamplerKind) -> NDArray[np.float32]:
    """What a sampler ranks the places (gy, gx) of one frame pair by."""
    change, brightness = scores
    if kind is SamplerKind.FOREGROUND:
        return np.asarray(brightness, np.float32)
    usual = np.maximum(np.median(change), np.finfo(np.float32).tiny)
    return np.asarray(change / usual, np.float32)

"""Where pretraining crops are drawn: weights per place, computed once per frame pair.

A sampler is added here: one function that maps a frame pair's score maps to weights.
Drawing then costs one binary search per crop, whatever the sampler.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter, uniform_filter
from scipy.stats import rankdata

from tapray.config import SamplerKind

STRIDE = 8  # pixels between candidate places


@dataclass(frozen=True)
class Scores:
    """Score maps over the candidate top-left corners of one movie's frame pairs.

    Both maps are (P, gy, gx) float32; place (i, j) is the crop whose top-left pixel is
    (i * STRIDE, j * STRIDE).
    """

    change: NDArray[np.float32]
    brightness: NDArray[np.float32]


def grid_shape(height: int, width: int, size: int) -> tuple[int, int]:
    """Number of candidate places along y and x."""
    return (height - size) // STRIDE + 1, (width - size) // STRIDE + 1


def score_pair(first: NDArray[np.float32], second: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """Label-free scores of every candidate crop of one frame pair.

    Change is the mean squared difference within the central two thirds of the crop, so that
    what changes is not cut off at its border, after the second frame was matched to the first
    in mean and spread (bleaching, lamp flicker) and both were smoothed (noise, sub-pixel drift).

    Args:
        first, second: (H, W) normalised frames.

    Returns:
        (2, gy, gx) float32: change and brightness.
    """
    a, b = (gaussian_filter(frame, 2.0, mode="nearest") for frame in (first, second))
    b = (b - b.mean()) * (a.std() / max(float(b.std()), 1e-6)) + a.mean()
    return np.stack([_inner_mean((b - a) ** 2, size), _inner_mean((a + b) / 2, size)])


def _inner_mean(image: NDArray[np.float32], size: int) -> NDArray[np.float32]:
    """(gy, gx) mean over the central two thirds of each candidate crop."""
    half = size // 2
    mean: NDArray[np.float32] = uniform_filter(image, 2 * size // 3, mode="nearest")
    gy, gx = grid_shape(image.shape[0], image.shape[1], size)
    return mean[half : half + gy * STRIDE : STRIDE, half : half + gx * STRIDE : STRIDE]


def weights(scores: Scores, kind: SamplerKind, candidates: float) -> NDArray[np.float64]:
    """Drawing weights (P, gy, gx) of a region's places; they sum to 1.

    - uniform: all places alike.
    - foreground: places whose brightness is not below the median (rejects empty ground).
    - change: the density of the best of `candidates` uniform draws, k q^(k-1) with q the
      quantile of the place's change over the median change of its frame pair. A focus jump or
      a flash changes a whole frame, its median too, and so does not draw the crops to it.
    """
    if kind is SamplerKind.UNIFORM:
        raw = np.ones(scores.change.shape)
    elif kind is SamplerKind.FOREGROUND:
        raw = (_quantiles(scores.brightness) >= 0.5).astype(np.float64)
    else:
        usual = np.median(scores.change, axis=(1, 2), keepdims=True)
        quantile = _quantiles(scores.change / np.maximum(usual, np.finfo(np.float32).tiny))
        raw = (quantile / quantile.max()) ** max(candidates - 1, 0)  # over the largest: never all 0
    out: NDArray[np.float64] = raw / raw.sum()
    return out


def _quantiles(score: NDArray[np.floating[Any]]) -> NDArray[np.float64]:
    """Of each place among all, in (0, 1); equal scores share one."""
    ranks: NDArray[np.float64] = rankdata(score)
    return ((ranks - 0.5) / score.size).reshape(score.shape)

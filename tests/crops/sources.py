"""Sources whose drawing weights a test chooses."""

from __future__ import annotations

import numpy as np

from tapray.crops.draw import Region, Source


def source_of(frames: np.ndarray, ranges: np.ndarray, weights: np.ndarray, delta: int = 1) -> Source:
    """All of a movie (T, H, W), whose places have these weights (P, gy, gx)."""
    rows = weights.reshape(len(weights), -1).cumsum(axis=1)
    pairs = rows[:, -1].cumsum()
    places = rows / np.maximum(rows[:, -1:], 1e-300)
    region = Region("m", 0, len(frames), 0, 0, *frames.shape[1:])
    shares = pairs / pairs[-1], places.astype(np.float32)
    return Source(region, delta, frames, ranges, *shares, weights.shape[1:])

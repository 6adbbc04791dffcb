"""Intensities: each frame by its own 1 and 99.8 percentiles (arXiv 2305.05511, section 2)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

PERCENTILES = (1.0, 99.8)


def frame_ranges(frames: NDArray[np.generic], intensity: str) -> NDArray[np.float32]:
    """The 1 and 99.8 percentiles of each frame, after the intensity transform.

    Args:
        frames: (T, H, W), any unsigned integer type.
        intensity: "linear", or "sqrt" which evens out Poisson noise and bright nuclei.

    Returns:
        (T, 2) float32: low, high with high > low. Where fewer than 0.2 % of the pixels differ
        from the ground, high is the brightest pixel; of a frame without contrast it is low + 1.
    """
    values = transform(frames, intensity).reshape(len(frames), -1)
    low, high = np.percentile(values, PERCENTILES, axis=1)
    high = np.where(high > low, high, values.max(axis=1))
    return np.stack([low, np.where(high > low, high, low + 1)], axis=1).astype(np.float32)


def transform(values: NDArray[np.generic], intensity: str) -> NDArray[np.float32]:
    """The intensity transform alone, as float32."""
    out = values.astype(np.float32)
    return np.sqrt(out, out=out) if intensity == "sqrt" else out


def normalise(pairs: NDArray[np.generic], ranges: NDArray[np.float32], intensity: str) -> NDArray[np.float32]:
    """Maps each frame's low percentile to 0 and its high one to 1.

    Args:
        pairs: (..., H, W) raw intensities.
        ranges: (..., 2) low and high of the frame each crop was cut from.

    Returns:
        (..., H, W) float32, not clipped.
    """
    out = transform(pairs, intensity)
    out -= ranges[..., 0, None, None]
    out /= (ranges[..., 1] - ranges[..., 0])[..., None, None]
    return out

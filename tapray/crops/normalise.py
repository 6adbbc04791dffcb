"""Intensities: each frame by its own 1 and 99.8 percentiles (arXiv 2305.05511, section 2)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from numpy.typing import NDArray

if TYPE_CHECKING:
    from torch import Tensor

PERCENTILES = (1.0, 99.8)
Values = TypeVar("Values", NDArray[np.float32], "Tensor")


def frame_ranges(frames: NDArray[np.generic], intensity: str) -> NDArray[np.float32]:
    """The 1 and 99.8 percentiles of each frame, after the intensity transform.

    Args:
        frames: (T, ..., H, W), any real type; each image (H, W) by itself.
        intensity: "linear", or "sqrt" which evens out Poisson noise and bright nuclei.

    Returns:
        (T, ..., 2) float32: low, high with high > low. Where fewer than 0.2 % of the pixels differ
        from the ground, high is the brightest pixel; of a frame without contrast it is low + 1.
    """
    images = frames.reshape(-1, *frames.shape[-2:])
    last = images[0].size - 1
    at = np.array(PERCENTILES) / 100 * last
    below = np.floor(at).astype(np.int64)
    ranks = np.concatenate([below, np.minimum(below + 1, last), [last]])
    # The transform keeps the order, so only the pixels of these ranks need it.
    found = transform(np.stack([_ranked(image, ranks) for image in images]), intensity).astype(np.float64)
    low, high = (found[:, :2] + (found[:, 2:4] - found[:, :2]) * (at - below)).T
    high = np.where(high > low, high, found[:, 4])
    ranges = np.stack([low, np.where(high > low, high, low + 1)], axis=1).astype(np.float32)
    return ranges.reshape(*frames.shape[:-2], 2)


def _ranked(frame: NDArray[Any], ranks: NDArray[np.int64]) -> NDArray[Any]:
    """The values of a frame that have these ranks from the smallest on; integers are counted, not sorted."""
    if frame.dtype.kind == "f":
        return np.partition(frame, ranks, axis=None)[ranks]
    least = int(frame.min())
    rising = np.bincount(frame.ravel().astype(np.intp) - least).cumsum()
    return np.searchsorted(rising, ranks, side="right") + least


def transform(values: NDArray[np.generic], intensity: str) -> NDArray[np.float32]:
    """The intensity transform alone, as float32; sqrt takes what is below 0 as 0."""
    out = values.astype(np.float32)
    return np.sqrt(np.maximum(out, 0, out=out), out=out) if intensity == "sqrt" else out


def normalise(pairs: NDArray[np.generic], ranges: NDArray[np.float32], intensity: str) -> NDArray[np.float32]:
    """Maps each frame's low percentile to 0 and its high one to 1.

    Args:
        pairs: (..., H, W) raw intensities.
        ranges: (..., 2) low and high of the frame each crop was cut from.

    Returns:
        (..., H, W) float32, not clipped.
    """
    return scale(transform(pairs, intensity), ranges)


def scale(values: Values, ranges: Values) -> Values:
    """The second half of `normalise`: maps transformed (..., H, W) by (..., 2), in place."""
    values -= ranges[..., 0, None, None]
    values /= (ranges[..., 1] - ranges[..., 0])[..., None, None]
    return values

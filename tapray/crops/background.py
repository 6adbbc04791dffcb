"""Background rejection: which crops hold anything at all, without labels."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from skimage.filters import threshold_otsu

SHARE = 0.02  # of a crop's pixels that must be foreground in one of its frames

Foreground = Callable[[int], NDArray[np.bool_]]  # frame -> (H, W)


def holds_foreground(crops: pd.DataFrame, foreground: Foreground, size: int) -> NDArray[np.bool_]:
    """(n,) whether at least SHARE of a crop's pixels is foreground in frame t or t + delta.

    One frame is in memory at a time.

    Args:
        crops: t, delta, y, x of crops of one movie.
    """
    first, y, x = (crops[name].to_numpy() for name in ("t", "y", "x"))
    second = first + crops["delta"].to_numpy()
    out = np.zeros(len(crops), dtype=bool)
    for t in np.unique(np.concatenate([first, second])):
        rows = np.flatnonzero((first == t) | (second == t))
        out[rows] |= areas(foreground(int(t)), y[rows], x[rows], size) >= SHARE * size**2
    return out


def areas(
    mask: NDArray[np.bool_], top: NDArray[np.int64], left: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """(n,) pixels of a mask (H, W) in the squares of that size with these corners."""
    total = np.pad(mask.cumsum(axis=0, dtype=np.int64).cumsum(axis=1), ((1, 0), (1, 0)))
    bottom, right = top + size, left + size
    found: NDArray[np.int64] = (
        total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
    )
    return found


def bright(frame: NDArray[Any]) -> NDArray[np.bool_]:
    """What is brighter than Otsu's threshold of a frame (H, W), smoothed by a Gaussian of 2 px.

    A frame without contrast has none. For fluorescence; cells in phase contrast need masks.
    """
    smooth = gaussian_filter(frame.astype(np.float32), 2.0)
    if smooth.min() == smooth.max():
        return np.zeros(frame.shape, bool)
    found: NDArray[np.bool_] = smooth > threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    return found

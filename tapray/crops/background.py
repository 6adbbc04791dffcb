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
        own = foreground(int(t)).astype(np.int64)
        total = np.pad(own.cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))
        top, left, bottom, right = y[rows], x[rows], y[rows] + size, x[rows] + size
        area = total[bottom, right] - total[top, right] - total[bottom, left] + total[top, left]
        out[rows] |= area >= SHARE * size**2
    return out


def bright(frame: NDArray[Any]) -> NDArray[np.bool_]:
    """What is brighter than Otsu's threshold of a frame (H, W), smoothed by a Gaussian of 2 px.

    A frame without contrast has none. For fluorescence; cells in phase contrast need masks.
    """
    smooth = gaussian_filter(frame.astype(np.float32), 2.0)
    if smooth.min() == smooth.max():
        return np.zeros(frame.shape, bool)
    found: NDArray[np.bool_] = smooth > threshold_otsu(smooth)  # type: ignore[no-untyped-call]
    return found

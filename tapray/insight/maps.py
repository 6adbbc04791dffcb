"""What dense features look like: as colours of a frame, and as a map of event crops."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

if TYPE_CHECKING:  # torch, which the worker that makes a map has no need of
    from tapray.study.fit import Crops

NEIGHBOURS = 15  # of UMAP
FEWEST, MOST = 100, 4000  # crops that a map needs, and shows
AT_ONCE = 256  # crops whose features are in memory


def as_colours(features: NDArray[np.float32]) -> NDArray[np.float32]:
    """Dense features (C, h, w) -> (h, w, 3) in 0..1: the first three principal components as red, green and
    blue, each from its 1 to its 99 percentile.
    """
    channels, height, width = features.shape
    flat = features.reshape(channels, -1).T
    found = PCA(3, svd_solver="full").fit_transform(flat)
    low, high = np.percentile(found, [1, 99], axis=0)
    colours: NDArray[np.float32] = ((found - low) / np.maximum(high - low, 1e-12)).clip(0, 1)
    return colours.reshape(height, width, 3).astype(np.float32)


def shown_crops(n: int, seed: int) -> NDArray[np.int64]:
    """Which of n crops a map shows, in order: all or, of more than MOST, so many drawn at random."""
    drawn = np.random.default_rng(seed).permutation(n)[:MOST]
    return np.sort(drawn)


def crop_means(features: Crops, rows: NDArray[np.int64]) -> NDArray[np.float32]:
    """(n, 3 C) of the crops `rows`: the means over space of their dense features (N, 2, C, h, w), of both
    frames and of their difference. No more than AT_ONCE crops are in memory whole.
    """
    cuts = range(AT_ONCE, len(rows), AT_ONCE)
    means = np.concatenate([features[own].float().mean(dim=(-2, -1)).numpy() for own in np.split(rows, cuts)])
    found: NDArray[np.float32] = np.hstack([means[:, 0], means[:, 1], means[:, 1] - means[:, 0]])
    return found


def crop_map(inputs: NDArray[np.float32], seed: int) -> NDArray[np.float32]:
    """UMAP (N, 2) of `crop_means` (N, 3 C) (McInnes et al. 2018); the same seed gives the same map."""
    spread = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1)
    from umap import UMAP  # compiles for seconds when it is loaded

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread, for the sake of the seed
        made = UMAP(n_neighbors=min(NEIGHBOURS, len(inputs) - 1), random_state=seed, n_jobs=1)
        found: NDArray[np.float32] = made.fit_transform(inputs)
    return found

"""What dense features look like: as colours of a frame, and as a map of event crops."""

from __future__ import annotations

import warnings

import numpy as np
from numpy.typing import NDArray
from sklearn.decomposition import PCA

NEIGHBOURS = 15  # of UMAP
FEWEST = 100  # crops that a map needs


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


def crop_map(features: NDArray[np.floating], seed: int) -> NDArray[np.float32]:
    """(N, 2, C, h, w) dense features of crops -> (N, 2): UMAP of their means over space, both frames and
    their difference (McInnes et al. 2018). The same seed gives the same map.
    """
    means = features.astype(np.float32).mean(axis=(-2, -1))
    inputs = np.hstack([means[:, 0], means[:, 1], means[:, 1] - means[:, 0]])
    spread = inputs.std(axis=0)
    inputs = (inputs - inputs.mean(axis=0)) / np.where(spread > 0, spread, 1)
    from umap import UMAP  # compiles for seconds when it is loaded

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of one thread, for the sake of the seed
        made = UMAP(n_neighbors=min(NEIGHBOURS, len(inputs) - 1), random_state=seed, n_jobs=1)
        found: NDArray[np.float32] = made.fit_transform(inputs)
    return found

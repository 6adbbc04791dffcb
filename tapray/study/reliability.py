"""How far probabilities can be relied on, from sums that add up over crops, so that resamples are products.

Source of the errors: Guo et al. 2017, "On Calibration of Modern Neural Networks", section 2; of the parts of
the Brier score: Murphy 1973, "A new vector partition of the probability score".
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array

from tapray.study.metrics import N_BINS, bin_index, event_probability

FloatArray = NDArray[np.float64]
SCORES = [
    *("ece", "ece_equal_mass", "ece_top_label", "mce", "nll", "brier"),
    *("brier_reliability", "brier_resolution", "brier_uncertainty"),
]
_KINDS = ("equal width", "equal mass", "top label")


def block_sums(
    probabilities: FloatArray, labels: NDArray[np.integer[Any]], blocks: NDArray[np.integer[Any]]
) -> FloatArray:
    """What `reliability_scores` needs, (G, Q), summed over the crops of each block.

    Args:
        probabilities: (N, K); labels: (N,) in 0..K-1; blocks: (N,) in 0..G-1.

    Q counts, for three kinds of bins, crops, predicted probability and truth in each bin, then crops,
    negative log-likelihood and squared error of the event probability.
    """
    event, truth = event_probability(probabilities), (np.asarray(labels) > 0).astype(np.float64)
    top = probabilities.max(axis=1)
    right = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    width = np.linspace(0, 1, N_BINS + 1)
    mass = np.quantile(event, np.linspace(0, 1, N_BINS + 1))
    columns = []
    for values, correct, edges in ((event, truth, width), (event, truth, mass), (top, right, width)):
        bins = bin_index(values, edges)
        columns += [_by_bin(weights, blocks, bins) for weights in (np.ones(len(values)), values, correct)]
    likelihood = probabilities[np.arange(len(labels)), labels].clip(np.finfo(np.float64).eps, 1.0)
    losses = np.stack([np.ones(len(event)), -np.log(likelihood), (event - truth) ** 2], axis=1)
    return np.hstack([*columns, coo_array((np.ones(len(blocks)), (blocks, np.arange(len(blocks))))) @ losses])


def _by_bin(weights: FloatArray, blocks: NDArray[Any], bins: NDArray[Any]) -> FloatArray:
    shape = (int(blocks.max()) + 1, N_BINS)
    dense: FloatArray = coo_array((weights, (blocks, bins)), shape=shape).toarray()
    return dense


def reliability_scores(sums: FloatArray) -> dict[str, FloatArray]:
    """The SCORES of sums (..., Q), each of shape (...).

    ece, ece_equal_mass and mce judge the event probability, in 15 bins of equal width or of equally many
    crops; ece_top_label the probability of the likeliest class (what torchmetrics and netcal call ECE of
    several classes). brier is its reliability - resolution + uncertainty, up to the spread within bins.
    """
    bins, (crops, nll, squared) = sums[..., :-3], np.moveaxis(sums[..., -3:], -1, 0)
    bins = bins.reshape(*sums.shape[:-1], len(_KINDS), 3, N_BINS)
    count, predicted, true = np.moveaxis(bins, -2, 0)  # each (..., kinds, bins)
    gaps = np.abs(predicted - true)
    ece = gaps.sum(axis=-1) / crops[..., None]
    filled = np.maximum(count, 1e-300)
    count, predicted, true, gap = (part[..., 0, :] for part in (count, predicted, true, gaps / filled))
    filled, rate = filled[..., 0, :], true.sum(axis=-1) / crops
    distance = (predicted - true) ** 2 / filled, count * (true / filled - rate[..., None]) ** 2
    reliability, resolution = (part.sum(axis=-1) / crops for part in distance)
    return {
        **{"ece": ece[..., 0], "ece_equal_mass": ece[..., 1], "ece_top_label": ece[..., 2]},
        **{"mce": gap.max(axis=-1), "nll": nll / crops, "brier": squared / crops},
        "brier_reliability": reliability,
        "brier_resolution": resolution,
        "brier_uncertainty": rate * (1 - rate),
    }

"""Does attribution find events? Its share near them beside their share of the ground, and its AUC."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tapray.study.statistics import bands, draws, time_blocks

BINS = 256  # of attribution, for the AUC
RESAMPLES = 1000
SCORES = ("mass_share", "area_share", "enrichment", "auc")
FloatArray = NDArray[np.float64]


def shown(events: pd.DataFrame, t: int, delta: int) -> pd.DataFrame:
    """The events that frames t to t + delta show in part."""
    return events[np.maximum(events["t"], t) < np.minimum(events["t_end"], t + delta)]


def near_events(
    events: pd.DataFrame, t: int, delta: int, shape: tuple[int, int], stride: int
) -> NDArray[np.bool_]:
    """(h, w) which places of a map lie within the radius of an event that frames t to t + delta show in part.

    Args:
        events: t, t_end, y, x, radius in pixels of the map's frame.
        shape: of the map; stride: pixels from place to place.
    """
    own = shown(events, t, delta)
    y, x = (stride * (np.arange(n) + 0.5) - 0.5 for n in shape)
    inside = np.zeros(shape, bool)
    for at_y, at_x, radius in own[["y", "x", "radius"]].to_numpy(float):
        inside |= (y[:, None] - at_y) ** 2 + (x - at_x) ** 2 <= radius**2
    return inside


def bin_edges(maps: Sequence[NDArray[np.float32]]) -> FloatArray:
    """Edges of BINS bins that hold equally many places of all maps, each (P, h, w)."""
    every = np.concatenate([own.ravel() for own in maps])
    edges: FloatArray = np.quantile(every, np.linspace(0, 1, BINS + 1)[1:-1])
    return edges


def tallies(maps: NDArray[np.float32], inside: NDArray[np.bool_], edges: FloatArray) -> FloatArray:
    """What `detection_scores` needs, (P, Q), of each frame pair.

    Args:
        maps: (P, h, w) attribution, 0 or more; inside: (P, h, w) near an event; edges: of `bin_edges`.
    """
    bins = np.searchsorted(edges, maps.reshape(len(maps), -1), side="right")
    flat, values = inside.reshape(len(inside), -1), maps.reshape(len(maps), -1).astype(np.float64)
    sums = [(values * flat).sum(1), values.sum(1), flat.sum(1), np.full(len(maps), flat.shape[1])]
    counts = [
        np.bincount(row[chosen], minlength=BINS)
        for row, near in zip(bins, flat, strict=True)
        for chosen in (near, ~near)
    ]
    return np.hstack([np.stack(sums, axis=1), np.reshape(counts, (len(maps), 2 * BINS))]).astype(np.float64)


def detection_scores(sums: FloatArray) -> dict[str, FloatArray]:
    """The SCORES of sums (..., Q), each (...): NaN where no event is near.

    mass_share: of the attribution, within the radius of an event; area_share: of the ground; enrichment their
    ratio; auc: the chance that a place near an event has more attribution than another, ties counting half.
    """
    mass_in, mass, area_in, area = np.moveaxis(sums[..., :4], -1, 0)
    near, far = sums[..., 4 : 4 + BINS], sums[..., 4 + BINS :]
    below = far.cumsum(axis=-1) - far / 2
    with np.errstate(invalid="ignore", divide="ignore"):
        auc = (near * below).sum(axis=-1) / (near.sum(axis=-1) * far.sum(axis=-1))
        shares = mass_in / mass, area_in / area
        enrichment = shares[0] / shares[1]
    return {"mass_share": shares[0], "area_share": shares[1], "enrichment": enrichment, "auc": auc}


def detection_table(
    sums: FloatArray, movie: NDArray[np.str_], t: NDArray[np.int64], rng: np.random.Generator
) -> pd.DataFrame:
    """metric, value, low, high (95 %, blocks of time or movies drawn anew) of frame pairs (P, Q)."""
    blocks = np.unique(time_blocks(movie, t, np.arange(len(t))), return_inverse=True)[1]
    by_block = np.zeros((blocks.max() + 1, sums.shape[1]))
    np.add.at(by_block, blocks, sums)
    whole = detection_scores(sums.sum(axis=0))
    resampled = detection_scores(draws(len(by_block), RESAMPLES, rng) @ by_block)
    low, high = bands(np.stack([resampled[name] for name in SCORES], axis=1))
    rows = [(name, float(whole[name]), a, b) for name, a, b in zip(SCORES, low, high, strict=True)]
    return pd.DataFrame(rows, columns=["metric", "value", "low", "high"])


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean rank correlation (Spearman) of two nets' maps (P, h, w): a map that says something of what was
    learned is unlike that of a net of chance (Adebayo et al. 2018, "Sanity checks for saliency maps").
    """
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    return float(np.mean([spearmanr(a, b).statistic for a, b in pairs]))

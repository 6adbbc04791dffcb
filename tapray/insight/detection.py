"""Does attribution find events? Its share near them beside their share of the ground, and its AUC."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.stats import spearmanr

from tapray.study.resampling import bands, draws

BINS = 256  # of attribution, for the AUC
FEWEST = 4  # blocks of time
RESAMPLES = 1000
SCORES = ("mass_share", "area_share", "enrichment", "auc")
FloatArray = NDArray[np.float64]


def spans(events: pd.DataFrame) -> tuple[FloatArray, FloatArray]:
    """From which frame to which events last, each (n,); one that is marked in a single frame, around it."""
    begin, end = (events[name].to_numpy(float) for name in ("t", "t_end"))
    single = begin == end
    return begin - single, end + single


def shown(events: pd.DataFrame, t: int, delta: int) -> pd.DataFrame:
    """The events that frames t to t + delta show in part."""
    begin, end = spans(events)
    return events[np.maximum(begin, t) < np.minimum(end, t + delta)]


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


def tallies(
    maps: NDArray[np.float32], inside: NDArray[np.bool_], known: NDArray[np.bool_], edges: FloatArray
) -> FloatArray:
    """What `detection_scores` needs, (P, Q), of each frame pair.

    Args:
        maps: (P, h, w) attribution, 0 or more; inside: (P, h, w) near an event; known: (P, h, w) which places
            count; edges: of `bin_edges`.
    """
    bins = np.searchsorted(edges, maps.reshape(len(maps), -1), side="right")
    near, far = (mask.reshape(len(maps), -1) for mask in (inside, known & ~inside))
    values = maps.reshape(len(maps), -1).astype(np.float64)
    sums = [(values * near).sum(1), (values * (near | far)).sum(1), near.sum(1), (near | far).sum(1)]
    counts = [
        np.bincount(row[chosen], minlength=BINS)
        for row, *both in zip(bins, near, far, strict=True)
        for chosen in both
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
    sums: Mapping[str, FloatArray], blocks: NDArray[np.int64], rng: np.random.Generator
) -> pd.DataFrame:
    """net, metric, value, low, high of frame pairs (P, Q) by net: 95 % over blocks (P,), drawn anew together.

    The last rows are those of the first net less the second (FIRST_minus_SECOND), on the same draws.
    """
    _, member = np.unique(blocks, return_inverse=True)
    drawn = draws(int(member.max()) + 1, RESAMPLES, rng)
    found = dict[str, tuple[FloatArray, FloatArray]]()  # value (scores,), resamples (R, scores)
    for net, own in sums.items():
        by_block = np.zeros((drawn.shape[1], own.shape[1]))
        np.add.at(by_block, member, own)
        whole, resampled = detection_scores(own.sum(axis=0)), detection_scores(drawn @ by_block)
        columns = (np.stack([scores[name] for name in SCORES], axis=-1) for scores in (whole, resampled))
        found[net] = next(columns), next(columns)
    if len(found) == 2:
        (one, first), (other, second) = found.items()
        found[f"{one}_minus_{other}"] = first[0] - second[0], first[1] - second[1]
    rows = [
        (net, name, float(value), low, high)
        for net, (values, resampled) in found.items()
        for name, value, low, high in zip(SCORES, values, *bands(resampled), strict=True)
    ]
    return pd.DataFrame(rows, columns=["net", "metric", "value", "low", "high"])


def time_parts(stretches: Sequence[int]) -> NDArray[np.int64]:
    """(P,) blocks that are drawn anew: whole stretches of so many frame pairs, cut where they are few.

    The frame pairs of one nucleus lie next to each other, so blocks are as long as FEWEST of them allow.
    """
    each = -(-FEWEST // len(stretches))
    parts = [number * each + np.arange(n) * each // n for number, n in enumerate(stretches)]
    blocks: NDArray[np.int64] = np.concatenate(parts)
    return blocks


def likeness(one: NDArray[np.float32], other: NDArray[np.float32]) -> float:
    """Mean rank correlation (Spearman) of two nets' maps (P, h, w): a map that says something of what was
    learned is unlike that of an untrained net (Adebayo et al. 2018, "Sanity checks for saliency maps").
    """
    pairs = zip(one.reshape(len(one), -1), other.reshape(len(other), -1), strict=True)
    found = [spearmanr(a, b).statistic for a, b in pairs if np.ptp(a) > 0 and np.ptp(b) > 0]
    return float(np.mean(found)) if found else float("nan")  # a map of nothing is like no other

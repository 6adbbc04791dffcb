"""Where an event head errs: by time, by place, by what is near, and by the kind and phase of the event.

The shares over time are those of arXiv 2411.03924, figure 4: of all false positives beside true positives and
all that are positive, of all false negatives beside true negatives and all that are negative.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.crops.background import areas
from tapray.data.places import CLASS_NAMES
from tapray.insight.detection import spans
from tapray.study.resampling import bands, draws

FRAME_BINS = 20
RESAMPLES = 1000
FEWEST_ERRORS = 5  # of which shares have an interval
KINDS = CLASS_NAMES[3]
OUTCOMES = ("true_positive", "false_positive", "false_negative", "true_negative")
SHARES = (*OUTCOMES, "positive", "negative")
RATES = {"false_positive_rate": (1, 5), "miss_rate": (2, 4)}  # of SHARES, one over the other
ERROR_COLUMNS = ["dimension", "bin", "quantity", "crops", "value", "low", "high"]
_EDGES: dict[str, tuple[float, ...]] = {  # lower edges of bins; the last is of what has no such event
    "frames to the event": (0, 1, 3, 6, 11, np.inf),
    "pixels to an event": (0, 8, 16, 32, 64, np.inf),
    "share that is cells": (0, 0.05, 0.15, 0.3, 0.5),
}
FloatArray = NDArray[np.float64]
Foreground = Callable[[str, int], NDArray[np.bool_]]  # movie, frame -> (H, W), where cells are


def crop_facts(
    crops: pd.DataFrame,
    events: Mapping[str, pd.DataFrame],
    shapes: Mapping[str, tuple[int, int, int]],
    size: int,
) -> pd.DataFrame:
    """What is near crops, a row a crop in the order of `crops`.

    Args:
        crops: movie, t, delta, y, x (corner), event_id.
        events: of each movie event_id, label, t, t_end, y, x.
        shapes: of the movies; size: of the crops.

    Columns: frame; since (frames since the start of the event nearest in time, within half a crop; NaN where
    there is none); frames to the event (to that one; infinite where there is none); pixels to an event
    (nearest in place, in these frames); pixels to the border; kind; phase (of crops of an event: frames since
    the last one before it, else NaN).
    """
    parts = [
        _facts_of_movie(own, events[str(movie)], shapes[str(movie)][1:], size)
        for movie, own in crops.groupby("movie", sort=False)
    ]
    return pd.concat(parts).loc[crops.index]


def _facts_of_movie(
    crops: pd.DataFrame, events: pd.DataFrame, field: tuple[int, int], size: int
) -> pd.DataFrame:
    t, y, x = (crops[name].to_numpy(float)[:, None] for name in ("t", "y", "x"))
    y, x, last = y + size / 2, x + size / 2, t + crops["delta"].to_numpy()[:, None]
    begin, at_y, at_x = (events[name].to_numpy(float) for name in ("t", "y", "x"))
    from_, end = spans(events)
    gap = np.maximum(np.maximum(from_ - last + 1, t - end + 1), 0)  # 0: they share a step in time
    away = np.hypot(y - at_y, x - at_x)
    nothing = np.full((len(crops), 1), np.inf)
    here = np.hstack([np.where(away <= size / 2, gap, np.inf), nothing])
    when, which = here.min(axis=1), here.argmin(axis=1)
    since = np.hstack([t - begin, nothing])[np.arange(len(crops)), which]
    where = np.hstack([np.where(gap == 0, away, np.inf), nothing]).min(axis=1)
    border = np.hstack([y, field[0] - y, x, field[1] - x]).min(axis=1)
    own = events.set_index("event_id").reindex(crops["event_id"])
    columns = {
        "frame": crops["t"].to_numpy(),
        "since": np.where(np.isfinite(when), since, np.nan),
        "frames to the event": when,
        "pixels to an event": where,
        "pixels to the border": border,
        "kind": [KINDS[int(label)] if label == label else KINDS[0] for label in own["label"]],
        "phase": crops["t"].to_numpy() - own["t"].to_numpy(float),
    }
    return pd.DataFrame(columns, index=crops.index)


def covered(crops: pd.DataFrame, foreground: Foreground, size: int) -> FloatArray:
    """(N,) share of each crop's first frame that is foreground; one frame is in memory at a time."""
    out = np.empty(len(crops))
    order = crops.reset_index(drop=True)
    for _, own in order.groupby(["movie", "t"]):
        movie, t = str(own["movie"].iloc[0]), int(own["t"].iloc[0])
        own_areas = areas(foreground(movie, t), own["y"].to_numpy(), own["x"].to_numpy(), size)
        out[own.index] = own_areas / size**2
    return out


def bins_of(facts: pd.DataFrame, dimension: str, size: int) -> tuple[list[str], NDArray[np.int64]]:
    """Names of a dimension's bins, and the bin (N,) of each crop; -1 where it belongs to none."""
    values = facts[dimension].to_numpy()
    if dimension in ("kind", "phase"):
        known = [*KINDS] if dimension == "kind" else sorted({int(v) for v in values if v == v})
        place = {name: number for number, name in enumerate(known)}
        return [str(name) for name in known], np.array([place.get(v, -1) for v in values])
    if dimension == "frame":
        low, high = values.min(), values.max() + 1
        edges = np.arange(low, high, max(1, -(-(high - low) // FRAME_BINS)), dtype=float)
    else:
        edges = np.array(_EDGES.get(dimension, (0, size / 2 + 1, size, 2 * size)), float)
    names = [_range(a, b, whole="frame" in dimension) for a, b in pairwise(edges)]
    names.append("none" if np.isinf(edges[-1]) else _range(edges[-1], np.inf, whole=False))
    return names, np.searchsorted(edges, values, side="right") - 1


def _range(low: float, high: float, *, whole: bool) -> str:
    """The name of a bin from low to just below high."""
    if np.isinf(high):
        return f"{low:g} or more"
    last = high - 1 if whole else high
    return f"{low:g}" if last == low else f"{low:g}-{last:g}"


def error_table(
    facts: pd.DataFrame,
    truth: NDArray[np.bool_],
    predicted: NDArray[np.bool_],
    blocks: NDArray[np.int64],
    groups: NDArray[np.int64],
    size: int,
    rng: np.random.Generator,
) -> pd.DataFrame:
    """Shares and rates by every dimension, with 95 % intervals over seeds and blocks of the test set.

    By frame, where blocks of time would be the bins themselves, over groups (events and places). Seeds are
    drawn with replacement, each for itself: with fewer than about ten, or where they share encoders,
    intervals are too narrow.

    Args:
        facts: N crops, the columns of `crop_facts` and `covered` by which errors are sorted.
        truth: (N,); predicted: (S, N), of S seeds; blocks, groups: (N,).

    Columns: dimension, bin, quantity, crops (per seed), value, low, high. Of the SHARES value is the share of
    all of that outcome that lies in the bin; of the RATES, of the bin's negatives that are found and of its
    positives that are missed, whose intervals are no narrower than so many crops allow.
    """
    outcome = np.where(truth, np.where(predicted, 0, 2), np.where(predicted, 1, 3))  # of OUTCOMES
    units = [np.unique(own, return_inverse=True)[1] for own in (blocks, groups)]
    drawn_units = [draws(int(own.max()) + 1, RESAMPLES, rng) for own in units]
    drawn_seeds = draws(len(predicted), RESAMPLES, rng) / len(predicted)
    rows = []
    for dimension in facts.columns:
        names, bins = bins_of(facts, dimension, size)
        member, weights = units[dimension == "frame"], drawn_units[dimension == "frame"]
        counts = _counts(outcome, member, bins, len(names))
        by_seed = np.tensordot(weights, counts, axes=(1, 1))  # (R, S, bins, outcomes)
        drawn = np.einsum("rsbo,rs->rbo", by_seed, drawn_seeds)
        whole = counts.sum(axis=1).mean(axis=0)
        for quantity, crops, value, resampled in _quantities(whole, drawn):
            columns = (names, crops, value, *_bands(quantity, crops, value, resampled))
            rows += [(dimension, name, quantity, *own) for name, *own in zip(*columns, strict=True)]
    return pd.DataFrame(rows, columns=ERROR_COLUMNS)


def _bands(
    quantity: str, crops: FloatArray, value: FloatArray, resampled: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """The intervals of a quantity by bin; NaN where the errors are too few to tell."""
    low, high = bands(resampled)
    if quantity in RATES:  # no resample of none of 30 is one: what so few crops can tell
        least, most = wilson(value, crops)
        return np.fmin(low, least), np.fmax(high, most)
    if crops.sum() < FEWEST_ERRORS:
        return np.full_like(low, np.nan), np.full_like(high, np.nan)
    return low, high


def _counts(
    outcome: NDArray[np.int64], member: NDArray[np.int64], bins: NDArray[np.int64], n_bins: int
) -> FloatArray:
    """Crops by seed, block, bin and SHARES."""
    known = bins >= 0
    found = np.zeros((len(outcome), int(member.max()) + 1, n_bins, len(SHARES)))
    for seed, own in enumerate(outcome):
        np.add.at(found[seed], (member[known], bins[known], own[known]), 1)
    found[..., 4], found[..., 5] = found[..., 0] + found[..., 2], found[..., 1] + found[..., 3]
    return found


def _quantities(
    whole: FloatArray, drawn: FloatArray
) -> Iterator[tuple[str, FloatArray, FloatArray, FloatArray]]:
    """Name, crops (bins,), value (bins,) and its resamples (R, bins) of every share and rate."""
    for number, name in enumerate(SHARES):
        own, resampled = whole[:, number], drawn[..., number]
        yield name, own, _ratio(own, own.sum()), _ratio(resampled, resampled.sum(axis=1, keepdims=True))
    for name, (number, below) in RATES.items():
        value = _ratio(whole[:, number], whole[:, below])
        yield name, whole[:, below], value, _ratio(drawn[..., number], drawn[..., below])


def wilson(share: FloatArray, n: FloatArray) -> tuple[FloatArray, FloatArray]:
    """95 % score interval of shares of n crops each (Wilson 1927); NaN of none."""
    z = 1.96
    n = np.where(n > 0, n, np.nan)
    middle, below = share + z**2 / (2 * n), 1 + z**2 / n
    half = z * np.sqrt(share * (1 - share) / n + z**2 / (4 * n**2))
    return (middle - half) / below, (middle + half) / below


def _ratio(above: FloatArray, below: FloatArray) -> FloatArray:
    """NaN where there is nothing."""
    out = np.full(np.broadcast_shapes(above.shape, below.shape), np.nan)
    np.divide(above, below, out=out, where=np.broadcast_to(below > 0, out.shape))
    return out

"""Labelled crops: from annotated places to an index of crop pairs, one row each.

Three kinds of place exist: events, known negatives, and unknown ground, which is never
counted as negative. All coordinates are pixels and frames of the movie; y, x of the index
are the top-left pixel of the crop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.config import CropConfig, Role
from tapray.crops.draw import Region
from tapray.crops.splits import SplitRegion
from tapray.data.annotations import Places

INDEX_COLUMNS = ["movie", "t", "delta", "y", "x", "label", "event_id", "group", "split", "weight"]
BACKGROUND = 0.25  # exhaustive movies: negatives drawn anywhere, per negative at an annotated place
BLOCK_FRAMES = 8  # crops of the same frames and neighbourhood form one group when resampling

Masks = Callable[[int, int], NDArray[np.uint8]]  # frames [start, stop) -> (n, H, W) event masks


def labelled_crops(
    places: Places, regions: list[SplitRegion], config: CropConfig, rng: np.random.Generator, masks: Masks
) -> pd.DataFrame:
    """The labelled crop pairs of one movie.

    Positives are cut around events, negatives at known negatives (`draw: sites`), or all
    crops are drawn anywhere and labelled by the event pixels they hold (`draw: uniform`,
    the published way). Where classes is 2, division and death are both 1.

    Returns:
        One row per crop with the columns of INDEX_COLUMNS.
    """
    parts = []
    for item in regions:
        if config.draw == "sites":
            part = _at_sites(places, item, config, rng)
        else:
            part = _anywhere(places, item.region, config, rng, masks)
        part["split"] = item.role.value if item.role else _shuffled(len(part), rng)
        parts.append(part)
    index = pd.concat(parts, ignore_index=True)
    if config.classes == 2:
        index["label"] = index["label"].clip(upper=1)
    block = (
        index.t // BLOCK_FRAMES * 10_000 + (index.y // (4 * config.size)) * 100 + index.x // (4 * config.size)
    )
    index["group"] = np.where(index.event_id >= 0, -1 - index.event_id, block)
    return index.assign(delta=config.delta, weight=1.0)


def _shuffled(n: int, rng: np.random.Generator) -> NDArray[np.str_]:
    """Published split: crops shuffled 60 / 20 / 20 whatever they overlap."""
    rank = rng.permutation(n) / max(n, 1)
    return np.select([rank < 0.6, rank < 0.8], ["train", "val"], "test")


def _at_sites(
    places: Places, item: SplitRegion, config: CropConfig, rng: np.random.Generator
) -> pd.DataFrame:
    table, region = places.table, item.region
    repeats = config.crops_per_event if item.role in (Role.TRAIN, None) else 1
    jitter = config.jitter if item.role in (Role.TRAIN, None) else 0
    events = _event_pairs(table[table.kind == "event"], config.delta)
    events = events.loc[events.index.repeat(repeats)]
    positive = _crop_at(events, region, config, jitter, rng)
    negative = _crop_at(_negative_places(places, region, config, rng), region, config, 0, rng)
    negative = negative[~_near_event(negative, table, config)]
    keep = rng.permutation(len(negative))[: config.max_negatives]
    negative = negative.iloc[np.sort(keep)].assign(event_id=-1, label=0)
    both = pd.concat([positive, negative], ignore_index=True)
    return both[["t", "y", "x", "label", "event_id"]]


def _event_pairs(events: pd.DataFrame, delta: int) -> pd.DataFrame:
    """One row per event and frame pair whose two frames both lie within the event.

    An event shorter than delta has the one pair that starts with it.
    """
    last = np.maximum(events.t, events.t_end - delta)
    spread = events.loc[events.index.repeat(last - events.t + 1)].copy()
    spread["t"] = spread.t + spread.groupby(level=0).cumcount()
    return spread.reset_index(drop=True)


def _crop_at(
    sites: pd.DataFrame, region: Region, config: CropConfig, jitter: int, rng: np.random.Generator
) -> pd.DataFrame:
    """Crops centred on `sites`, shifted by at most `jitter`, and inwards at borders.

    Sites outside the region are dropped, and those which the border pushes further than a
    quarter of a crop from the centre.
    """
    sites = sites[(sites.t >= region.start) & (sites.t + config.delta < region.stop)].copy()
    centre = sites[["y", "x"]].to_numpy()
    shift = rng.integers(-jitter, jitter + 1, size=centre.shape)
    low, high = np.array([region.top, region.left]), np.array([region.bottom, region.right])
    corner = np.clip(np.round(centre - config.size / 2).astype(np.int64) + shift, low, high - config.size)
    off = np.abs(corner + config.size / 2 - centre).max(axis=1)
    inside = ((centre >= low) & (centre < high)).all(axis=1) & (off <= max(config.size / 4, jitter + 1))
    sites["y"], sites["x"] = corner[:, 0], corner[:, 1]
    return sites[inside]


def _negative_places(
    places: Places, region: Region, config: CropConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Known negatives; where every event is annotated, also places drawn anywhere."""
    known = places.table[places.table.kind == "negative"][["t", "y", "x"]]
    if not places.exhaustive:
        return known
    n = int(BACKGROUND * len(known)) if len(known) else 4 * config.max_negatives
    half = config.size / 2
    anywhere = {
        "t": rng.integers(region.start, region.stop - config.delta, size=n),
        "y": rng.uniform(region.top + half, region.bottom - half, size=n),
        "x": rng.uniform(region.left + half, region.right - half, size=n),
    }
    return pd.concat([known, pd.DataFrame(anywhere)], ignore_index=True)


def _near_event(crops: pd.DataFrame, table: pd.DataFrame, config: CropConfig) -> NDArray[np.bool_]:
    """(n,) whether an event or unknown place lies in a crop, within `margin` frames of the pair."""
    risky = table[table.kind != "negative"]
    if risky.empty or crops.empty:
        return np.zeros(len(crops), dtype=bool)
    t, y, x = (crops[name].to_numpy()[:, None] for name in ("t", "y", "x"))
    start, end = risky.t.to_numpy() - config.margin, risky.t_end.to_numpy() + config.margin
    time = (t + config.delta >= start) & (t <= end)
    space = (
        (risky.y.to_numpy() >= y)
        & (risky.y.to_numpy() < y + config.size)
        & (risky.x.to_numpy() >= x)
        & (risky.x.to_numpy() < x + config.size)
    )
    return (time & space).any(axis=1)


def _anywhere(
    places: Places, region: Region, config: CropConfig, rng: np.random.Generator, masks: Masks
) -> pd.DataFrame:
    """Crops drawn uniformly, positive if either frame holds more event pixels than the threshold.

    Source: arXiv 2411.03924, section 2.2. Where annotation is not exhaustive, a crop without
    an event counts as negative only if a known negative lies near its centre.
    """
    parts = []
    for t in range(region.start, region.stop - config.delta):
        pair = masks(t, t + config.delta + 1)[[0, config.delta]]
        n = config.crops_per_frame
        y = rng.integers(region.top, region.bottom - config.size + 1, size=n)
        x = rng.integers(region.left, region.right - config.size + 1, size=n)
        areas = np.stack([_areas(pair == label, y, x, config.size) for label in (1, 2)])
        label = np.where(areas.max(axis=0) > config.area_threshold, areas.argmax(axis=0) + 1, 0)
        parts.append(pd.DataFrame({"t": t, "y": y, "x": x, "label": label}))
    crops = pd.concat(parts, ignore_index=True)
    nearest, distance = _nearest_event(crops, places.table, config)
    crops["event_id"] = np.where(crops.label > 0, nearest, -1)
    if places.exhaustive:
        return crops
    known = _holds_negative(crops, places.table, config)
    return crops[(crops.label > 0) | (known & ~_near_event(crops, places.table, config))]


def _areas(
    mask: NDArray[np.bool_], y: NDArray[np.int64], x: NDArray[np.int64], size: int
) -> NDArray[np.int64]:
    """(n,) the larger count of mask pixels of the two frames (2, H, W) in each crop."""
    total = np.pad(mask.astype(np.int64), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    bottom, right = y + size, x + size
    return (total[:, bottom, right] - total[:, y, right] - total[:, bottom, x] + total[:, y, x]).max(axis=0)


def _nearest_event(
    crops: pd.DataFrame, table: pd.DataFrame, config: CropConfig
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """The event that touches the pair in time and is nearest to the crop's centre."""
    events = table[table.kind == "event"]
    if events.empty:
        return np.full(len(crops), -1), np.full(len(crops), np.inf)
    centre = crops[["y", "x"]].to_numpy() + config.size / 2
    away = np.linalg.norm(centre[:, None] - events[["y", "x"]].to_numpy()[None], axis=2)
    t = crops.t.to_numpy()[:, None]
    away[(t + config.delta < events.t.to_numpy()) | (t > events.t_end.to_numpy())] = np.inf
    nearest = away.argmin(axis=1)
    return events.event_id.to_numpy()[nearest], away.min(axis=1)


def _holds_negative(crops: pd.DataFrame, table: pd.DataFrame, config: CropConfig) -> NDArray[np.bool_]:
    """(n,) whether a known negative of frame t lies within a quarter of a crop of the centre."""
    known = table[table.kind == "negative"]
    out = np.zeros(len(crops), dtype=bool)
    by_frame = dict(list(known.groupby("t")))
    for t, group in crops.groupby("t"):
        if t in by_frame:
            centre = group[["y", "x"]].to_numpy() + config.size / 2
            away = np.abs(centre[:, None] - by_frame[t][["y", "x"]].to_numpy()[None]).max(axis=2)
            out[crops.index.get_indexer(group.index)] = (away <= config.size / 4).any(axis=1)
    return out

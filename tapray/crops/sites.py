"""Labelled crops: from annotated places to an index of crop pairs, one row each.

Three kinds of place exist: events, known negatives, and unknown ground, which is never
counted as negative. All coordinates are pixels and frames of the movie; y, x of the index
are the top-left pixel of the crop.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

from tapray.config import CropConfig, Role
from tapray.crops.draw import Region
from tapray.crops.splits import SplitRegion
from tapray.data.annotations import Places

INDEX_COLUMNS = ["movie", "t", "delta", "y", "x", "label", "event_id", "group", "split"]
BACKGROUND = 0.25  # exhaustive movies: negatives drawn anywhere, per negative at an annotated place
AROUND = 3  # exhaustive movies: frame pairs before and after an event that are negatives too
BLOCK_FRAMES = 8  # crops of the same frames and neighbourhood form one group when resampling

Masks = Callable[[int, int], NDArray[np.uint8]]  # frames [start, stop) -> (n, H, W) event masks


def labelled_crops(
    places: Places,
    regions: list[SplitRegion],
    config: CropConfig,
    rng: np.random.Generator,
    masks: Masks,
    fractions: tuple[float, float, float] = (0.6, 0.2, 0.2),
) -> pd.DataFrame:
    """The labelled crop pairs of one movie.

    Positives are cut around events, negatives at known negatives (`draw: sites`), or all
    crops are drawn anywhere and labelled by the event pixels they hold (`draw: uniform`,
    the published way). Where classes is 2, division and death are both 1.

    Args:
        regions: the regions of this movie.
        fractions: of train, val and test, for regions without a role.

    Returns:
        One row per crop with the columns of INDEX_COLUMNS; event_id is -1 for negatives.
    """
    parts = []
    for item in regions:
        if config.draw == "sites":
            part = _at_sites(places, item, config, rng)
        else:
            part = _anywhere(places, item.region, config, rng, masks)
        split = item.role.value if item.role else _shuffled(len(part), fractions, rng)
        parts.append(part.assign(movie=item.region.movie, split=split))
    index = pd.concat(parts, ignore_index=True).assign(delta=config.delta)
    if config.classes == 2:
        index["label"] = index["label"].clip(upper=1)
    far = 4 * config.size
    block = index.groupby([index.t // BLOCK_FRAMES, index.y // far, index.x // far]).ngroup()
    index["group"] = np.where(index.event_id >= 0, -1 - index.event_id, block)
    return index[INDEX_COLUMNS]


def _shuffled(n: int, fractions: tuple[float, float, float], rng: np.random.Generator) -> NDArray[np.str_]:
    """Published split: crops shuffled among the splits whatever they overlap."""
    rank, (train, val, _) = rng.permutation(n) / max(n, 1), fractions
    return np.select([rank < train, rank < train + val], ["train", "val"], "test")


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
    negative = negative[~_near(negative, table[table.kind != "negative"], config)]
    negative = negative.assign(event_id=-1, label=0)
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

    Sites outside the region are dropped, and those which end up further than a quarter of a
    crop (or the jitter, where it is larger) from the centre, or at the edge of the crop.
    """
    sites = sites[(sites.t >= region.start) & (sites.t + config.delta < region.stop)]
    centre = sites[["y", "x"]].to_numpy()
    shift = rng.integers(-jitter, jitter + 1, size=centre.shape)
    low, high = np.array([region.top, region.left]), np.array([region.bottom, region.right])
    corner = np.clip(np.round(centre - config.size / 2).astype(np.int64) + shift, low, high - config.size)
    off = np.abs(corner + config.size / 2 - centre).max(axis=1)
    reach = min(max(config.size / 4, jitter + 1), config.size / 2 - 1)
    inside = ((centre >= low) & (centre < high)).all(axis=1) & (off <= reach)
    kept: pd.DataFrame = sites.assign(y=corner[:, 0], x=corner[:, 1])[inside]
    return kept


def _negative_places(
    places: Places, region: Region, config: CropConfig, rng: np.random.Generator
) -> pd.DataFrame:
    """Known negatives; where every event is annotated, also places drawn anywhere and around events."""
    known = places.table[places.table.kind == "negative"][["t", "y", "x"]]
    if not places.exhaustive:
        return known
    here = region.holds(*known.to_numpy().T)
    n = int(BACKGROUND * here.sum()) if len(known) else 4 * config.max_negatives
    half = config.size / 2
    anywhere = {
        "t": rng.integers(region.start, region.stop - config.delta, size=n),
        "y": rng.uniform(region.top + half, region.bottom - half, size=n),
        "x": rng.uniform(region.left + half, region.right - half, size=n),
    }
    return pd.concat([known, pd.DataFrame(anywhere), _around_events(places.table, config)], ignore_index=True)


def _around_events(table: pd.DataFrame, config: CropConfig) -> pd.DataFrame:
    """The places of events, AROUND frame pairs before and after: what an event is easily mistaken for.

    They lie just beyond the frames which are neither event nor negative.
    """
    events = table[table.kind == "event"]
    step = np.arange(AROUND)
    margin = config.margin + events.frame_slack.to_numpy()[:, None]
    before = events.t.to_numpy()[:, None] - margin - config.delta - 1 - step
    after = events.t_end.to_numpy()[:, None] + margin + 1 + step
    spread = events.loc[events.index.repeat(2 * AROUND), ["y", "x"]]
    return spread.assign(t=np.concatenate([before, after], axis=1).ravel())[["t", "y", "x"]]


def _near(crops: pd.DataFrame, risky: pd.DataFrame, config: CropConfig) -> NDArray[np.bool_]:
    """(n,) whether one of the places `risky` may lie in a crop, within `margin` frames of the pair."""
    margin, rim = config.margin + risky.frame_slack.to_numpy(), -risky.slack.to_numpy()
    return _holds(crops, risky, config.size, span=config.delta, margin=margin, rim=rim)


def _holds(
    crops: pd.DataFrame, places: pd.DataFrame, size: int, *, span: int, margin: ArrayLike, rim: ArrayLike
) -> NDArray[np.bool_]:
    """(n,) whether any of `places` lies in a crop, at least `rim` px from its edge.

    In time a place covers its frames and `margin` more on each side, a crop frames t to t + span.
    `margin` and `rim` are one value for all places or one for each.
    """
    start, end = places.t.to_numpy() - np.asarray(margin), places.t_end.to_numpy() + np.asarray(margin)
    edge = np.broadcast_to(rim, len(places))[:, None]
    first = crops.t.to_numpy()
    at, corner = places[["y", "x"]].to_numpy(), crops[["y", "x"]].to_numpy()
    out = np.zeros(len(crops), dtype=bool)
    for rows in crops.groupby("t").indices.values():  # a frame at a time: few places are near it
        t = first[rows[0]]
        here = (start <= t + span) & (end >= t)
        offset = at[here][None] - corner[rows][:, None]
        out[rows] = ((offset >= edge[here]) & (offset < size - edge[here])).all(axis=2).any(axis=1)
    return out


def _anywhere(
    places: Places, region: Region, config: CropConfig, rng: np.random.Generator, masks: Masks
) -> pd.DataFrame:
    """Crops drawn uniformly, positive if either frame holds more event pixels than the threshold.

    Source: arXiv 2411.03924, section 2.2. Negatives near unknown places are left out; where
    annotation is not exhaustive, so are those that are not centred on a known negative.
    """
    parts = []
    for t in range(region.start, region.stop - config.delta):
        pair = np.concatenate([masks(frame, frame + 1) for frame in (t, t + config.delta)])
        n = config.crops_per_frame
        y = rng.integers(region.top, region.bottom - config.size + 1, size=n)
        x = rng.integers(region.left, region.right - config.size + 1, size=n)
        areas = np.stack([_areas(pair == label, y, x, config.size) for label in (1, 2)])
        label = np.where(areas.max(axis=0) > config.area_threshold, areas.argmax(axis=0) + 1, 0)
        parts.append(pd.DataFrame({"t": t, "y": y, "x": x, "label": label}))
    crops, table = pd.concat(parts, ignore_index=True), places.table
    if places.exhaustive:
        negative = ~_near(crops, table[table.kind == "unknown"], config)
    else:
        known = table[table.kind == "negative"]
        negative = _holds(crops, known, config.size, span=0, margin=0, rim=config.size / 4)
        negative &= ~_near(crops, table[table.kind != "negative"], config)
    positive = crops[crops.label > 0]
    crops["event_id"] = -1
    if len(positive):
        crops.loc[positive.index, "event_id"] = _events_of(positive, table[table.kind == "event"], config)
    return crops[(crops.label > 0) | negative]


def _areas(
    mask: NDArray[np.bool_], y: NDArray[np.int64], x: NDArray[np.int64], size: int
) -> NDArray[np.int32]:
    """(n,) the larger count of mask pixels of the two frames (2, H, W) in each crop."""
    total = np.pad(mask.astype(np.int32), ((0, 0), (1, 0), (1, 0))).cumsum(axis=1).cumsum(axis=2)
    bottom, right = y + size, x + size
    areas = total[:, bottom, right] - total[:, y, right] - total[:, bottom, x] + total[:, y, x]
    larger: NDArray[np.int32] = areas.max(axis=0)
    return larger


def _events_of(crops: pd.DataFrame, events: pd.DataFrame, config: CropConfig) -> NDArray[np.int64]:
    """(n,) event_id of the event of the crop's label that is nearest in time, then to its centre."""
    centre = crops[["y", "x"]].to_numpy() + config.size / 2
    away = np.linalg.norm(centre[:, None] - events[["y", "x"]].to_numpy()[None], axis=2)
    t = crops[["t"]].to_numpy()
    gap = np.maximum(events.t.to_numpy() - t - config.delta, t - events.t_end.to_numpy()).clip(min=0)
    other = crops[["label"]].to_numpy() != events.label.to_numpy()
    nearest = (away + 1e6 * gap + 1e12 * other).argmin(axis=1)
    ids: NDArray[np.int64] = events.event_id.to_numpy()[nearest]
    return ids

"""Places: where and when something is known, or known to be unknown."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray

PLACE_COLUMNS = ("kind", "event_id", "label", "t", "t_end", "y", "x", "radius", "frame_slack", "slack")
LABELS = {"none": 0, "event": 1, "division": 1, "death": 2}  # event: of a model of two classes
CLASS_NAMES = {2: ("none", "event"), 3: ("none", "division", "death")}  # of models, by number of classes
DEFAULT_RADIUS = (
    16.0  # px, where an annotation says none: a dividing HeLa cell and both daughters at 0.645 um/px
)
MIN_RADIUS = 10.0  # px; closer than this two places are one, however small their marks are
NEAR_FRAMES = 2  # frames; and closer than this in time
STEADY_FRAMES = 3  # a known negative is more frames than this from the ends of its track

_DTYPES = dict(
    zip(
        PLACE_COLUMNS,
        ("str", *["int64"] * 4, *["float64"] * 3, "int64", "float64"),
        strict=True,
    )
)


@dataclass(frozen=True)
class Places:
    """All that the annotations of one movie say, a row a place, by t, y and x.

    table: kind ("event", "negative" or "unknown"); event_id (unique for events, -1 otherwise); label
    (0 none, 1 division, 2 death); t, t_end in frames (event: the last frame before it, while the mother
    is one body, and the first after it; negative: t_end = t); y, x, radius in pixels; frame_slack and
    slack: by how many frames and pixels the annotation may be off.
    exhaustive: every event of the movie is an event here, so that what is away from all places is
    negative too.
    corrections: the places of annotations that overrule others; overruled: the events that they do away with.
    """

    table: pd.DataFrame
    exhaustive: bool
    corrections: pd.DataFrame = field(default_factory=lambda: no_places())
    overruled: pd.DataFrame = field(default_factory=lambda: no_places())


def make_table(
    kind: ArrayLike,
    label: ArrayLike,
    t: ArrayLike,
    t_end: ArrayLike,
    y: ArrayLike,
    x: ArrayLike,
    radius: ArrayLike,
) -> pd.DataFrame:
    """A table of places without slack; columns may be one value for all.

    `event_id` is -1 until tables are merged.
    """
    columns = np.broadcast_arrays(*map(np.atleast_1d, (kind, -1, label, t, t_end, y, x, radius, 0, 0.0)))
    return pd.DataFrame(dict(zip(PLACE_COLUMNS, columns, strict=True))).astype(_DTYPES)


def no_places() -> pd.DataFrame:
    """An empty table of places."""
    return make_table([], 0, 0, 0, 0.0, 0.0, 0.0)


def merge(tables: Iterable[pd.DataFrame]) -> pd.DataFrame:
    """One table of several, each event once.

    An event that is near one of the same label in an earlier table is the same event, and is dropped. So
    are negatives and unknown places near any event: the event says more. Near: closer in space than the
    larger radius of the two (at least 10 px), and at most 2 frames apart; the slack of both comes on top.
    """
    events = no_places()
    others = [events]
    for table in tables:
        is_event = table["kind"] == "event"
        new = table[is_event]
        same = np.zeros(len(new), bool)
        for label in events["label"].unique():
            same |= near(new, events[events["label"] == label]) & (new["label"] == label).to_numpy()
        events = pd.concat([events, new[~same]])
        others.append(table[~is_event])
    rest = pd.concat(others)
    whole = pd.concat([events, rest[~near(rest, events)]])
    whole = whole.sort_values(["t", "y", "x"], kind="stable", ignore_index=True)
    is_event = whole["kind"] == "event"
    whole["event_id"] = np.where(is_event, is_event.cumsum() - 1, -1)
    return whole.astype(_DTYPES)


def near(places: pd.DataFrame, events: pd.DataFrame) -> NDArray[np.bool_]:
    """Which places are near any of the events, as `merge` says."""
    t, t_end, y, x, radius, frames, pixels = (places[name].to_numpy() for name in PLACE_COLUMNS[3:])
    found = np.zeros(len(places), bool)
    for start, end, at_y, at_x, own, own_frames, own_pixels in events[list(PLACE_COLUMNS[3:])].to_numpy(
        float
    ):
        reach = np.maximum(radius, max(own, MIN_RADIUS)) + pixels + own_pixels
        apart = np.maximum(t - end, start - t_end) - frames - own_frames
        found |= (np.hypot(y - at_y, x - at_x) < reach) & (apart <= NEAR_FRAMES)
    return found


def steady(points: pd.DataFrame, open_ends: tuple[int, ...] = ()) -> NDArray[np.bool_]:
    """Which track points (columns id, t; each pair once) are known negatives.

    Those whose id is there at t - 1 and t + 1 too, and that are more than 3 frames from the first and the
    last frame of their track. An end at one of the frames `open_ends` does not count: there the movie
    ends and not the track.
    """
    ordered = points[["id", "t"]].sort_values(["id", "t"])
    by_id = ordered.groupby("id")["t"]
    first, last = by_id.transform("min"), by_id.transform("max")
    t = ordered["t"]
    inside = (by_id.diff() == 1) & (by_id.diff(-1) == -1)
    far = ((t - first > STEADY_FRAMES) | first.isin(open_ends)) & (
        (last - t > STEADY_FRAMES) | last.isin(open_ends)
    )
    return (inside & far).reindex(points.index).to_numpy(dtype=bool)

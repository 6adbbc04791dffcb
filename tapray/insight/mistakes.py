"""The most confident mistakes of an event head, one for each place, as a table that can be corrected."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.data.places import CLASS_NAMES

MOST = 8  # of each kind
MISTAKE_COLUMNS = [
    *("mistake", "movie", "t", "y", "x", "class", "quality", "t_end", "radius", "probability"),
    *("first", "last", "top", "left"),
]
_PLACE = ["t", "y", "x", "t_end", "radius"]


def mistakes(
    crops: pd.DataFrame,
    event: NDArray[np.float64],
    threshold: float,
    size: int,
    classes: int,
    events: pd.DataFrame,
) -> pd.DataFrame:
    """False positives from the most probable down, then false negatives from the least probable up.

    At most MOST of each, and one for each group of crops. With the columns of an event table: the place of
    what was annotated, or the middle of the crop where that is nothing; class what was annotated, quality
    `review`, so that a row counts once it is given another. first and last, the frames of the crop that was
    judged; top and left, its corner.

    Args:
        crops: N test crops: movie, t, delta, y, x (corner), label, group, event_id.
        event: (N,) calibrated probability of an event; threshold: from which on it is called one.
        classes: of the labels.
        events: what is annotated: movie, event_id, t, y, x, t_end, radius.
    """
    truth, found = crops["label"].to_numpy() > 0, event >= threshold
    names = np.array(CLASS_NAMES[classes])
    table = pd.DataFrame(
        {
            "mistake": np.where(truth, "false negative", "false positive"),
            "movie": crops["movie"].to_numpy(),
            "t": crops["t"].to_numpy(),
            "y": crops["y"].to_numpy() + size // 2,
            "x": crops["x"].to_numpy() + size // 2,
            "class": names[crops["label"].to_numpy()],
            "quality": "review",
            "t_end": crops["t"].to_numpy() + crops["delta"].to_numpy(),
            "radius": size / 4,
            "probability": event,
            "first": crops["t"].to_numpy(),
            "last": crops["t"].to_numpy() + crops["delta"].to_numpy(),
            "top": crops["y"].to_numpy(),
            "left": crops["x"].to_numpy(),
            "group": crops["group"].to_numpy(),
        }
    )
    own = crops[["movie", "event_id"]].merge(events, how="left", on=["movie", "event_id"], validate="m:1")
    table[_PLACE] = own[_PLACE].fillna(table[_PLACE]).astype({"t": int, "t_end": int})
    parts = []
    for missed in (False, True):
        own = table[(found != truth) & (truth == missed)]
        own = own.sort_values("probability", ascending=missed, kind="stable")
        parts.append(own.drop_duplicates("group").head(MOST))
    both: pd.DataFrame = pd.concat(parts, ignore_index=True)[MISTAKE_COLUMNS]
    return both

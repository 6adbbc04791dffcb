"""The most confident mistakes of an event head, one for each place, as a table that can be corrected."""

from __future__ import annotations

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from tapray.data.places import CLASS_NAMES
from tapray.study.metrics import event_probability, predict_classes

MOST = 8  # of each kind
FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_KIND = "false positive", "false negative", "wrong kind"
MISTAKE_COLUMNS = [
    *("mistake", "movie", "t", "y", "x", "class", "quality", "t_end", "radius", "called", "probability"),
    *("first", "last", "top", "left"),
]
_PLACE = ["t", "y", "x", "t_end", "radius"]


def mistakes(
    crops: pd.DataFrame, probabilities: NDArray[np.float64], threshold: float, size: int, events: pd.DataFrame
) -> pd.DataFrame:
    """False positives from the most probable down, false negatives from the least probable up and, where
    there are several kinds of event, those that are called another, from the most probable down.

    At most MOST of each, and one for each group of crops. With the columns of an event table: the place of
    what was annotated, or the middle of the crop where that is nothing; class what was annotated, quality
    `review`, so that a row counts once it is given another. called: the class that the head says;
    probability: of an event, or of that kind of event where the kind is wrong. first and last, the frames of
    the crop that was judged; top and left, its corner.

    Args:
        crops: N test crops: movie, t, delta, y, x (corner), label, group, event_id.
        probabilities: (N, K), calibrated; threshold: of an event, from which on it is called one.
        events: what is annotated: movie, event_id, t, y, x, t_end, radius.
    """
    table = _judged(crops, probabilities, threshold, size)
    own = crops[["movie", "event_id"]].merge(events, how="left", on=["movie", "event_id"], validate="m:1")
    table[_PLACE] = own[_PLACE].fillna(table[_PLACE]).astype({"t": int, "t_end": int})
    parts = []
    for mistake in (FALSE_POSITIVE, FALSE_NEGATIVE, WRONG_KIND):
        own = table[table["mistake"] == mistake]
        own = own.sort_values("probability", ascending=mistake == FALSE_NEGATIVE, kind="stable")
        parts.append(own.drop_duplicates("group").head(MOST))
    every: pd.DataFrame = pd.concat(parts, ignore_index=True)[MISTAKE_COLUMNS]
    return every


def _judged(
    crops: pd.DataFrame, probabilities: NDArray[np.float64], threshold: float, size: int
) -> pd.DataFrame:
    """A row for each crop, in their order: which mistake it is, or "" for none, and what is told of it."""
    names = np.array(CLASS_NAMES[probabilities.shape[1]])
    label, called = crops["label"].to_numpy(), predict_classes(probabilities, threshold)
    right = [called == label, label == 0, called == 0]
    mistake = np.select(right, ["", FALSE_POSITIVE, FALSE_NEGATIVE], WRONG_KIND)
    of_kind = probabilities[np.arange(len(crops)), called]
    last = crops["t"].to_numpy() + crops["delta"].to_numpy()
    columns = {
        "mistake": mistake,
        "movie": crops["movie"].to_numpy(),
        "t": crops["t"].to_numpy(),
        "y": crops["y"].to_numpy() + size // 2,
        "x": crops["x"].to_numpy() + size // 2,
        "class": names[label],
        "quality": "review",
        "t_end": last,
        "radius": size / 4,
        "called": names[called],
        "probability": np.where(mistake == WRONG_KIND, of_kind, event_probability(probabilities)),
        "first": crops["t"].to_numpy(),
        "last": last,
        "top": crops["y"].to_numpy(),
        "left": crops["x"].to_numpy(),
        "group": crops["group"].to_numpy(),
    }
    return pd.DataFrame(columns)

"""Dense tracks (Cell Tracking Challenge) as places."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd

from tapray.config import Annotation
from tapray.data.ctc import LINEAGE, centroids, read_lineage
from tapray.data.masks import open_masks
from tapray.data.movies import Movie
from tapray.data.places import LABELS, MIN_RADIUS, make_table, steady
from tapray.errors import UserError

MAX_GAP = 3  # frames from a mother's last frame to the first frame of a daughter that still counts


def read_tracks(annotation: Annotation, name: str, movie: Movie) -> pd.DataFrame:
    """Places of a folder of track masks with man_track.txt.

    Division: a track with two or more children that begin at most 3 frames after it ends; t is its last
    frame, t_end the first of a child, y and x its centroid at t, radius the distance to the far side of
    the farthest child, masks taken as discs. Unknown: a track with children otherwise, from its end to
    the child; a track without children that ends before the last frame, at its end and the frame after,
    unless it is within its own radius (at least 10 px) of the border. Where the annotation says
    that such ends are deaths they are, and those near the border are unknown. Negative: see
    `places.steady`; a track that begins with the movie or ends with it has no end there.
    """
    masks = open_masks(annotation, movie)
    lineage = read_lineage(annotation.path / LINEAGE)
    points = centroids(masks.read(t, t + 1)[0] for t in range(masks.shape[0]))
    _check(points, lineage, annotation.path)
    points["radius"] = np.sqrt(points["area"] / np.pi)
    calm = points[steady(points, open_ends=(0, movie.shape[0] - 1))]
    negatives = make_table("negative", 0, calm["t"], calm["t"], calm["y"], calm["x"], calm["radius"])
    return pd.concat(
        [_ends_with_children(points, lineage), _other_ends(points, lineage, movie, annotation), negatives]
    )


def _check(points: pd.DataFrame, lineage: pd.DataFrame, folder: Path) -> None:
    """The masks and man_track.txt name the same tracks in the same frames."""
    seen = points.groupby("id")["t"].agg(["min", "max"])
    named = lineage.set_index("label")
    for ids, what in (
        (named.index.difference(seen.index), "is in man_track.txt but in no mask"),
        (seen.index.difference(named.index), "is in the masks but not in man_track.txt"),
    ):
        if len(ids):
            raise UserError(f"track {ids[0]} {what}", where=folder)
    both = named.join(seen)
    wrong = both[(both["begin"] != both["min"]) | (both["end"] != both["max"])]
    if len(wrong):
        row = wrong.iloc[0]
        what = f"is in frames {row['min']}..{row['max']}, man_track.txt says {row['begin']}..{row['end']}"
        raise UserError(f"track {wrong.index[0]} {what}", where=folder)


def _ends_with_children(points: pd.DataFrame, lineage: pd.DataFrame) -> pd.DataFrame:
    """Divisions, and unknown places where a track has one child or late ones."""
    at = points.set_index(["id", "t"])[["y", "x", "radius"]]
    children = lineage[lineage["parent"] != 0].copy()
    children["t"] = children["parent"].map(lineage.set_index("label")["end"])
    mother = at.loc[list(zip(children["parent"], children["t"], strict=True))].to_numpy()
    child = at.loc[list(zip(children["label"], children["begin"], strict=True))].to_numpy()
    children[["y", "x", "own"]] = mother
    apart = np.hypot(mother[:, 0] - child[:, 0], mother[:, 1] - child[:, 1])
    children["radius"] = np.maximum(mother[:, 2], apart + child[:, 2])
    children["soon"] = children["begin"] - children["t"] <= MAX_GAP
    soon = children[children["soon"]].groupby("parent")["radius"].agg(["size", "max"])
    mothers = children.groupby("parent").agg(
        {"t": "first", "begin": "min", "y": "first", "x": "first", "own": "first"}
    )
    mothers = mothers.join(soon)
    divides = mothers["size"] >= 2
    return make_table(
        np.where(divides, "event", "unknown"),
        np.where(divides, LABELS["division"], 0),
        mothers["t"],
        mothers["begin"],
        mothers["y"],
        mothers["x"],
        np.where(divides, mothers["max"], np.maximum(mothers["own"], MIN_RADIUS)),
    )


def _other_ends(
    points: pd.DataFrame, lineage: pd.DataFrame, movie: Movie, annotation: Annotation
) -> pd.DataFrame:
    """Where a track ends inside the field and the movie: death, a miss, or out of focus."""
    n_frames, height, width = movie.shape
    childless = ~lineage["label"].isin(lineage["parent"]) & (lineage["end"] < n_frames - 1)
    last = lineage[childless].merge(points, left_on=["label", "end"], right_on=["id", "t"])
    reach = last["radius"].clip(lower=MIN_RADIUS)
    to_border = np.minimum.reduce(
        [last["y"], last["x"], height - 1 - last["y"], width - 1 - last["x"]], axis=0
    )
    inside, deaths = to_border > reach, annotation.ends == "death"
    if not deaths:  # near the border a cell leaves
        last, reach, inside = last[inside], reach[inside], inside[inside]
    kind = np.where(inside & deaths, "event", "unknown")
    label = np.where(inside & deaths, LABELS["death"], 0)
    return make_table(kind, label, last["t"], last["t"] + 1, last["y"], last["x"], reach)

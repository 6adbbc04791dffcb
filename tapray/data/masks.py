"""Event masks: 1 where and when a cell divides, 2 where and when it dies."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy import ndimage

from tapray.config import Annotation
from tapray.data.movies import Movie, open_movie
from tapray.data.places import LABELS, make_table, no_places
from tapray.errors import UserError

BRIDGE = 3  # px; marks of one event up to twice this apart are joined, yet neighbours are not
_BLOCK = 32  # frames read at once


def open_masks(annotation: Annotation, movie: Movie) -> Movie:
    """The masks (T, Y, X) of an annotation; UserError unless they are integers of the movie's shape."""
    masks = open_movie(annotation.path)
    if masks.shape != movie.shape:
        what = f"masks of shape {masks.shape} for a movie of shape {movie.shape}"
        raise UserError(what, where=annotation.path, todo=f"the movie is {movie.path}")
    if masks.dtype.kind == "f":
        raise UserError(f"masks are {masks.dtype}, not 8 or 16 bit whole numbers", where=annotation.path)
    return masks


def read_masks(masks: Movie, start: int, stop: int) -> NDArray[np.uint8]:
    """Masks of frames [start, stop) as (stop - start, Y, X); UserError for values other than 0, 1, 2."""
    frames: NDArray[np.integer] = masks.read(start, stop)
    if frames.size and frames.max() > max(LABELS.values()):
        at = start + int(np.flatnonzero((frames > max(LABELS.values())).any(axis=(1, 2)))[0])
        raise UserError(
            f"frame {at} holds {frames.max()}",
            where=masks.path,
            todo="event masks hold 0, 1 (division) and 2 (death) only",
        )
    return frames.astype(np.uint8, copy=False)


def read_event_masks(annotation: Annotation, name: str, movie: Movie) -> pd.DataFrame:
    """Events of a stack or folder of masks.

    An event is a connected component in (t, y, x) of one value, 26-connected after every frame's marks
    were widened by 3 px on each side, so that bodies up to 6 px apart are one event. t is its
    first frame, t_end its last, y and x the centroid of its pixels in the first frame, radius the
    distance from there to its farthest pixel's far side in any frame, so that the disc of this radius
    covers the event.
    """
    masks = open_masks(annotation, movie)
    tables = [no_places()]
    for start, run in _runs(masks):
        for label in (LABELS["division"], LABELS["death"]):
            tables.append(_components(run == label, label, start))
    return pd.concat(tables)


def _runs(masks: Movie) -> Iterator[tuple[int, NDArray[np.uint8]]]:
    """Runs of consecutive frames that hold marks, each with its first frame: only these are in memory."""
    n_frames = masks.shape[0]
    run: list[NDArray[np.uint8]] = []
    for start in range(0, n_frames, _BLOCK):
        block = read_masks(masks, start, min(start + _BLOCK, n_frames))
        for t, frame in enumerate(block, start):
            if frame.any():
                run.append(frame)
            elif run:
                yield t - len(run), np.stack(run)
                run = []
    if run:
        yield n_frames - len(run), np.stack(run)


def _components(marks: NDArray[np.bool_], label: int, start: int) -> pd.DataFrame:
    """Events among marks (n, Y, X) of one label, whose first frame is `start`."""
    wide = marks
    for axis in (1, 2):
        wide = ndimage.maximum_filter1d(wide, 2 * BRIDGE + 1, axis=axis, mode="constant")
    ids, _ = ndimage.label(wide, np.ones((3, 3, 3), bool))
    t, y, x = np.nonzero(marks)
    pixels = pd.DataFrame({"id": ids[t, y, x], "t": t + start, "y": y, "x": x})
    spans = pixels.groupby("id")["t"].agg(["min", "max"])
    pixels = pixels.join(spans["min"].rename("first"), on="id")
    centre = pixels[pixels["t"] == pixels["first"]].groupby("id")[["y", "x"]].mean()
    at = pixels[["id"]].join(centre, on="id")
    pixels["far"] = np.hypot(pixels["y"] - at["y"], pixels["x"] - at["x"]) + 0.5
    radius = pixels.groupby("id")["far"].max()
    return make_table("event", label, spans["min"], spans["max"], centre["y"], centre["x"], radius)


def draw_discs(table: pd.DataFrame, start: int, stop: int, shape: tuple[int, int]) -> NDArray[np.uint8]:
    """Masks (stop - start, Y, X) holding every event's label within its radius, in frames t to t_end."""
    height, width = shape
    masks = np.zeros((stop - start, height, width), np.uint8)
    events = table[(table["kind"] == "event") & (table["t"] < stop) & (table["t_end"] >= start)]
    rows = events[["label", "t", "t_end", "y", "x", "radius"]].to_numpy(float)
    for label, first, last, y, x, radius in rows:
        top, left = max(0, int(y - radius)), max(0, int(x - radius))
        bottom, right = min(height, int(y + radius) + 1), min(width, int(x + radius) + 1)
        rows_y, columns_x = np.ogrid[top:bottom, left:right]
        disc = np.hypot(rows_y - y, columns_x - x) <= radius
        masks[max(int(first) - start, 0) : int(last) + 1 - start, top:bottom, left:right][:, disc] = label
    return masks
